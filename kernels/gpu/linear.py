"""Products of rows with matrices, whose bits do not depend on the batch."""

from typing import TypeVar

import triton
from torch import Tensor, nn

from kernels.gpu.src import layers

TILE = {"ROWS": 16, "OUTPUTS": 32, "INPUTS": 32}
"""The sides of a tile, whatever the batch: each number is added up in the same order in every batch."""

Module = TypeVar("Module", bound=nn.Module)


def product(
    layer: nn.Linear, slots: Tensor | None, outputs: Tensor, by_row: Tensor, *by_slot: Tensor, clip: float = 0.0
) -> None:
    """Set outputs, [B, O], to those of a linear layer, within [-clip, clip] if clip is not 0.

    slots: int32 [B], None where nothing is by_slot. The layer's inputs are the rows of by_row, [B, A], then the leaves
    by_slot, [slots, ...] each, of the rows' slots: at most two.
    """
    widths = [by_row.shape[1], *(leaf[0].numel() for leaf in by_slot), 0, 0]
    sources = [by_row, *by_slot, by_row, by_row]
    (rows, size), is_biased = outputs.shape, layer.bias is not None
    layers.linear[triton.cdiv(rows, TILE["ROWS"]), triton.cdiv(size, TILE["OUTPUTS"])](
        by_row if slots is None else slots, *sources[:3],
        layer.weight, layer.bias if is_biased else layer.weight, outputs, rows, clip,
        A=widths[0], B=widths[1], C=widths[2], OUT=size, BIASED=is_biased, **TILE, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip


class RowLinear(nn.Module):
    """A linear layer by `product`: the bits of a row do not depend on the batch that it is in."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: Tensor) -> Tensor:
        """values: [B, in_features]. Returns [B, out_features]."""
        outputs = values.new_empty(len(values), self.layer.out_features)
        product(self.layer, None, outputs, values.contiguous())
        return outputs


def by_rows(module: Module) -> Module:
    """Put a RowLinear in the place of every linear layer of a module, and return the module."""
    for name, child in module.named_children():
        setattr(module, name, RowLinear(child) if isinstance(child, nn.Linear) else by_rows(child))
    return module
