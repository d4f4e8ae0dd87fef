"""The effect of memories and link matrices in bfloat16 on the errors of trained models.

Their numbers are rounded after every step, as an arena of a GPU keeps them, and everything else stays in float32.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import machine, versions
from benchmarks.table import Row, Table, print_table
from kernels.gpu.support import LARGE
from kernels.torch_unroll import TorchUnroll
from models.artefact import load
from models.config import ConfigError
from models.state import flatten, unflatten
from training.evaluation import measure, options_text, points_of
from training.tasks import build_task


@dataclass(frozen=True)
class RoundingPlan:
    """The models to measure, and the sequences of each measurement.

    options: of the tasks that have them. most_slots: of the memories that are measured.
    """

    checkpoints: Sequence[Path]
    sequences: int
    options: dict[str, Any]
    most_slots: int


def rounded(state: Any) -> Any:
    """Return a state whose large leaves are rounded to bfloat16."""
    leaves = flatten(state)
    return unflatten(leaves | {name: leaves[name].bfloat16().float() for name in LARGE if name in leaves}, state)


class RoundedUnroll(TorchUnroll):
    """Steps a model over whole sequences, with a state that is rounded after every step."""

    def __call__(self, inputs: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:  # noqa: ARG002
        """Return the outputs, [T, B, output_size], and the last state; beyond the lengths of rows both are void."""
        outputs = []
        for vectors in inputs:
            output, state, _ = self.model.step(vectors, state)
            state = rounded(state)
            outputs.append(output)
        return torch.stack(outputs), state


def measure_models(plan: RoundingPlan) -> Iterator[Row]:
    for directory in plan.checkpoints:
        model, manifest = load(directory)
        if model.memory_size is None:
            continue
        try:
            options = {name: value for name, value in plan.options.items() if name in manifest.task}
            task = build_task(manifest.task | options)
            for point in points_of(manifest.evaluation):
                slots = point.memory_size or model.memory_size
                if slots > plan.most_slots:
                    continue
                at = task.with_options(point.options)
                figures = [
                    measure(model, at, plan.sequences, memory_size=point.memory_size, unroll=unroll)
                    for unroll in (None, RoundedUnroll(model))
                ]
                exact, coarse = (f"{each.excess:.3g}" for each in figures)
                yield directory.name, options_text(point.options), slots, exact, coarse
        except ConfigError as error:
            yield directory.name, f"not measured: {error}", "-", "-", "-"


ROUNDED = Table(
    "Memories and links in bfloat16",
    "Errors per sequence of the shipped models at the points of their cards (of `ngrams` bits beyond the optimum): "
    "states in float32, and with memory and link matrix rounded to bfloat16 after every step.",
    ("model", "what", "slots", "float32", "bfloat16"),
    measure_models,
)


def run(checkpoints: Path, models: Sequence[str], sequences: int, directory: str | None, most_slots: int) -> None:
    """Print the table. models: names, all if there are none; directory: of bAbI's stories; most_slots: of a memory."""
    torch.set_num_threads(1)
    print(f"`python -m benchmarks.rounded_state --sequences {sequences}` on {machine()}; {versions('torch')}.")
    found = sorted(path for path in checkpoints.iterdir() if path.is_dir() and (not models or path.name in models))
    options = {"directory": directory} if directory else {}
    print_table("rounded", ROUNDED, RoundingPlan(found, sequences, options, most_slots))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rounded_state",
        description="Measure what memories and link matrices in bfloat16 change in the errors of trained models.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("models", nargs="*", help="names of checkpoints; all, if there are none")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="directory of the models")
    parser.add_argument("--sequences", type=int, default=200, help="sequences of each measurement")
    parser.add_argument(
        "--most-slots", type=int, default=256, help="leave out larger memories, which torch steps slowly"
    )
    parser.add_argument("--directory", help="bAbI's stories, such as en-10k")
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
