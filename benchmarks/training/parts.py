"""Time the parts of an update by the kernels while it runs."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from benchmarks.table import Row, Table
from benchmarks.training.plan import TrainingPlan, preset
from training.trainer import Trainer
from training.updates import KernelUpdates

LENGTH = 10
"""The length of the sequences: about the mean of 1 to 20."""

COLUMNS = ("update", "data", "sequences", "weights", "around them", "the rest")


class Stopwatch:
    """A sum of the processor seconds of calls. A call within another counts for both."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def on(self, part: str, owner: Any, *names: str) -> Iterator[None]:
        """Time calls of the functions of an owner during the context."""
        with ExitStack() as patches:
            for name in names:
                patches.enter_context(mock.patch.object(owner, name, self._timed(part, getattr(owner, name))))
            yield

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - began

        return timed


def measure_parts(plan: TrainingPlan) -> Iterator[Row]:
    for name, batch in plan.cases():
        trainer = Trainer(preset(name, batch, (LENGTH, LENGTH)), path="fused")
        trainer.update()
        updates: list[dict[str, float]] = []
        with stopwatch(trainer) as watch:
            end = time.perf_counter() + plan.rounds * plan.seconds
            while len(updates) < plan.updates or time.perf_counter() < end:
                watch.seconds.clear()
                trainer.update()
                updates.append(parts(watch.seconds))
        yield name, batch, *(1e6 * statistics.median(update[column] for update in updates) for column in COLUMNS)


@contextmanager
def stopwatch(trainer: Trainer) -> Iterator[Stopwatch]:
    """Time the parts of a trainer's updates by the kernels during the context."""
    watch, updates = Stopwatch(), trainer.updates
    assert isinstance(updates, KernelUpdates)
    with (
        watch.on("update", Trainer, "update"),
        watch.on("data", type(trainer.task), "sample"),
        watch.on("by the kernels", KernelUpdates, "update"),
        watch.on("sequences", updates.fused.library, "make_calls", "loss"),
        watch.on("weights", updates.fused.library, "gradient_norm", "step_weights"),
    ):
        yield watch


def parts(seconds: dict[str, float]) -> dict[str, float]:
    """Return the stopwatch's seconds by COLUMNS, in which none counts twice."""
    around = seconds["by the kernels"] - seconds["sequences"] - seconds["weights"]
    apart = seconds | {"around them": around}
    return apart | {"the rest": apart["update"] - sum(apart[column] for column in COLUMNS[1:-1])}


PARTS = Table(
    "Where an update goes",
    f"Microseconds of processor time of an update by the kernels, of sequences of {LENGTH} vectors, and of its parts "
    "as they follow each other: medians of updates. Sequences are stepped forwards and backwards, the loss between; "
    "of the weights are the norm of the gradients, clipping, the optimiser and the transposed matrices; around them is "
    "what calls both.",
    ("model", "batch", *COLUMNS),
    measure_parts,
)
