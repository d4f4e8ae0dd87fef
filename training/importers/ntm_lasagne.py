"""snipsco/ntm-lasagne: an NTM whose heads act before its controller.

Lasagne saves no names, only the order of the parameters, `get_all_param_values(layer)`, which numpy.savez numbers
arr_0, arr_1, ...: those of the controller, of the memory, of each head and of the dense layer behind the NTM. Its
published models are older than 0.2: a head's first weighting comes first, and weights have no leading axis of length 1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.cells import (
    GRU,
    LSTM,
    ActivationName,
    BasicRNN,
    BasicRNNConfig,
    Cell,
    CellConfig,
    FeedForward,
    FeedForwardConfig,
    GRUConfig,
    LSTMConfig,
)
from models.config import from_values
from models.contract import Activation
from models.ntm import NTM, NTMConfig
from training.importers.variables import Imported, Variables, fill_rows

HEAD = "p{5}s(?:pp)?(?=p{5}s|$)|sp{5}(?:pp)?"
"""The parameters of a head, now or before 0.2: `p` is a pair of a weight and its bias, `s` a single one."""

ORDER = re.compile("(?P<starts>ss?)(?P<gates>p+)s(?P<heads>(p{5}s(pp)?)+|(sp{5}(pp)?)+)p")

CONTROLLERS = {("s", 2): "dense", ("s", 3): "recurrent", ("s", 9): "gru", ("ss", 12): "lstm"}
"""Controllers, by their parameters: first states, and pairs for the inputs, the read vectors and the hidden state."""

ADDRESSING = ("keys", "key_strength", "interpolation_gate", "shift_weights", "sharpening")
CHANGES = ("erase_vectors", "add_vectors")
"""The parts of the interface, in the order of a head's pairs."""

ACTIVATIONS: dict[str, ActivationName] = {
    "rectify": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "identity",
}
OUTPUTS: dict[str, Activation] = {"sigmoid": "sigmoid", "softmax": "softmax", "linear": "identity"}
"""Lasagne's names of activations -> ours."""


@dataclass(frozen=True)
class Nonlinearities:
    """The nonlinearities of its constructors, by Lasagne's names, with its defaults.

    nonlinearity: of a dense or recurrent controller; output: of the dense layer behind the NTM. ClippedLinear is that
    from 0 to 1. All others (of beta, the gates, the shift, gamma) must be the constructor's defaults.
    """

    nonlinearity: Literal["rectify", "tanh", "sigmoid", "linear"] = "rectify"
    nonlinearity_key: Literal["ClippedLinear", "rectify"] = "ClippedLinear"
    nonlinearity_add: Literal["ClippedLinear", "rectify"] = "ClippedLinear"
    output: Literal["sigmoid", "softmax", "linear"] = "sigmoid"


@dataclass(frozen=True)
class ParameterLayout:
    """The kinds of the parameters, and the sizes in their shapes."""

    controller: str
    writes: list[bool]
    """For each head, in order, whether it writes."""
    early: bool
    """Whether the model is older than version 0.2."""
    inputs: int
    units: int
    memory_size: int
    word: int
    shifts: int
    outputs: int

    @property
    def reads(self) -> int:
        return self.writes.count(False)


def ntm_lasagne(config: Mapping[str, Any], variables: Variables) -> Imported:
    """Import an NTM whose heads act before the controller, and whose outputs depend on the controller's alone."""
    chosen, layout = from_values(Nonlinearities, config, "ntm-lasagne"), _layout(variables)
    if chosen.nonlinearity_key != chosen.nonlinearity_add:
        raise variables.refusal(
            f"nonlinearity_key and nonlinearity_add must be the same, got {chosen.nonlinearity_key!r} and "
            f"{chosen.nonlinearity_add!r}"
        )
    model_config = _model_config(layout, chosen)
    model, numbered = NTM(model_config), Numbered(variables)
    starts = dict(model.starts.state_dict())
    hidden = numbered.take(1, layout.units)[0]
    for name in {"hidden.values", "controller_h.values"} & starts.keys():
        starts[name].copy_(hidden)
    if layout.controller == "lstm":
        starts["controller_c.values"].copy_(numbered.take(1, layout.units)[0])
    _fill_controller(model.controller, layout, numbered)
    starts["memory.values"].copy_(numbered.take(layout.memory_size, layout.word))
    starts["weights.values"].copy_(_fill_heads(model, layout, numbered))
    fill_rows(model.output.weight, model.output.bias, [numbered.pair(layout.units, layout.outputs)])
    return Imported("ntm", model_config, model)


def _model_config(layout: ParameterLayout, chosen: Nonlinearities) -> NTMConfig:
    controllers: dict[str, CellConfig] = {
        "dense": FeedForwardConfig(hidden_size=layout.units, activation=ACTIVATIONS[chosen.nonlinearity]),
        "recurrent": BasicRNNConfig(hidden_size=layout.units, activation=ACTIVATIONS[chosen.nonlinearity]),
        "gru": GRUConfig(hidden_size=layout.units),
        "lstm": LSTMConfig(hidden_size=layout.units, forget_bias=0),
    }
    return NTMConfig(
        input_size=layout.inputs,
        output_size=layout.outputs,
        output_activation=OUTPUTS[chosen.output],
        memory_size=layout.memory_size,
        word_size=layout.word,
        read_heads=layout.reads,
        write_heads=len(layout.writes) - layout.reads,
        shift_width=layout.shifts,
        controller=controllers[layout.controller],
        order="before-controller",
        style="ntm-lasagne",
        rectified_heads=chosen.nonlinearity_key == "rectify",
        memory_start="random",
        weights_start="random",
        controller_start="random",
    )


class Numbered:
    """The parameters in their order, each taken once."""

    def __init__(self, variables: Variables) -> None:
        self.variables = variables
        self.number = 0

    def take(self, *shape: int) -> Tensor:
        """Return the next parameter. Raises ImportFailed if its shape differs."""
        self.number += 1
        return self.variables.take(f"arr_{self.number - 1}", *shape)

    def pair(self, inputs: int, outputs: int, *before: int) -> Tensor:
        """Return the next weight and bias, side by side: [outputs, inputs + 1]. before: their axes of length 1."""
        weight, bias = self.take(*before, inputs, outputs), self.take(*before, outputs)
        return torch.cat([weight.reshape(inputs, outputs).T, bias.reshape(outputs, 1)], 1)

    def first_weighting(self, memory_size: int) -> Tensor:
        """Return the next parameter, a head's first weighting, as the logits that a model holds: [memory_size]."""
        weights = self.take(1, memory_size)[0]
        if (weights < 0).any() or (weights.sum() - 1).abs() > 1e-4:
            raise self.variables.refusal(
                f"variable 'arr_{self.number - 1}', the first weighting of a head, must be at least 0 and sum to 1, "
                f"got {weights.min().item():g} at least and a sum of {weights.sum().item():g}"
            )
        return weights.clamp(min=1e-30).log()


def _layout(variables: Variables) -> ParameterLayout:
    """Return the layout of the parameters by their order and shapes. Raises ImportFailed if they have none."""
    shapes = [variables.shape(f"arr_{number}") for number in range(len(variables.names()))]
    kinds, firsts = _kinds(shapes)
    order = ORDER.fullmatch(kinds)
    controller = order and CONTROLLERS.get((order["starts"], len(order["gates"])))
    if order is None or controller is None:
        raise variables.refusal(
            "the parameters must be those of a controller, the memory, the heads and a dense layer, in the order of "
            f"lasagne.layers.get_all_param_values, got shapes {', '.join(str(list(shape)) for shape in shapes)}"
        )
    heads = re.findall(HEAD, order["heads"])
    memory = shapes[firsts[order.end("gates")]]
    early = order["heads"].startswith("s")
    shift = firsts[order.start("heads") + early + ADDRESSING.index("shift_weights")]
    return ParameterLayout(
        controller=controller,
        writes=[head.count("p") == len(ADDRESSING + CHANGES) for head in heads],
        early=early,
        inputs=shapes[firsts[order.start("gates")]][0],
        units=shapes[0][1],
        memory_size=memory[0],
        word=memory[1],
        shifts=shapes[shift][-1],
        outputs=shapes[-1][0],
    )


def _kinds(shapes: list[tuple[int, ...]]) -> tuple[str, list[int]]:
    """Return the kinds of parameters, `s` for single ones, `p` for a weight and its bias, and the first of each."""
    kinds, firsts, number = "", [], 0
    while number < len(shapes):
        axes = [len(shape) for shape in shapes[number : number + 2]]
        is_pair = axes == [axes[0], axes[0] - 1]
        firsts.append(number)
        kinds += "p" if is_pair else "s"
        number += 2 if is_pair else 1
    return kinds, firsts


def _fill_controller(cell: Cell, layout: ParameterLayout, numbered: Numbered) -> None:
    """Fill the gates: each has layers for the inputs, the read vectors and, if recurrent, the hidden state."""
    sizes = [layout.inputs, layout.reads * layout.word, layout.units][: 2 if layout.controller == "dense" else 3]

    def gate() -> Tensor:
        layers = [numbered.pair(size, layout.units) for size in sizes]
        bias = torch.stack([layer[:, -1] for layer in layers]).sum(0)
        return torch.cat([*(layer[:, :-1] for layer in layers), bias.unsqueeze(1)], 1)

    if isinstance(cell, FeedForward):
        layer = cell.layers[0]
        assert isinstance(layer, nn.Linear)
        fill_rows(layer.weight, layer.bias, [gate()])
    elif isinstance(cell, BasicRNN):
        fill_rows(cell.hidden.weight, cell.hidden.bias, [gate()])
    elif isinstance(cell, GRU):
        update, reset = gate(), gate()
        fill_rows(cell.gates.weight, cell.gates.bias, [reset, update])
        fill_rows(cell.candidate.weight, cell.candidate.bias, [gate()])
    elif isinstance(cell, LSTM):
        inward, forget, outward, candidate = (gate() for _ in range(4))
        fill_rows(cell.gates.weight, cell.gates.bias, [inward, candidate, forget, outward])


def _fill_heads(model: NTM, layout: ParameterLayout, numbered: Numbered) -> Tensor:
    """Fill the interface layers of the heads, read heads first; return their first weightings: [H, N]."""
    sizes = {name: shape[-1] if len(shape) > 1 else 1 for name, shape in model.interface.parts.items()}
    before = () if layout.early else (1,)
    taken: list[tuple[bool, Tensor, dict[str, Tensor]]] = []
    for writes in layout.writes:
        first = numbered.first_weighting(layout.memory_size) if layout.early else None
        layers = {name: numbered.pair(layout.units, sizes[name], *before) for name in ADDRESSING}
        first = numbered.first_weighting(layout.memory_size) if first is None else first
        if writes:
            layers |= {name: numbered.pair(layout.units, sizes[name], *before) for name in CHANGES}
        taken.append((writes, first, layers))
    taken.sort(key=lambda head: head[0])
    for name, weight, bias in model.interface.each():
        fill_rows(weight, bias, [layers[name] for _, _, layers in taken if name in layers])
    return torch.stack([first for _, first, _ in taken])
