"""Look for the state of one session in another, on servers that are reached only through their ports.

    observed sessions   alone: outputs and states of every step           the reference
                        again, beside strangers, in situation after situation
    strangers           send other inputs, extremes, NaN; are reset, forked, evicted, ...

`judge` distinguishes leaks from rounding; `situations` lists the situations; `engram isolate` prints the report.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.isolation.host import Card, NotStarted, ServerFault
from benchmarks.isolation.judge import Finding, Judge
from benchmarks.isolation.situations import SITUATIONS, Situation, alone
from benchmarks.isolation.stage import Options, Stage

__all__ = ["SITUATIONS", "Options", "Report", "Verdict", "check", "isolate"]

MOST_SESSIONS = 100
"""Observed sessions at most: with as many strangers they fit into one request."""

LEAST_STEPS = 4
"""Steps at least: a session is forked at a fourth and at half of them."""


@dataclass(frozen=True)
class Verdict:
    """The result of one situation.

    alone: against the same sessions alone. others: against batches of the same sizes with other strangers, None where
    the situation has none. note: why it was left out, or the fault of the server that ended it; alone is then None.
    """

    situation: Situation
    alone: Finding | None
    others: Finding | None = None
    note: str | None = None
    failed: bool = False

    @property
    def fault(self) -> str | None:
        """The first leak, or the fault of the server if `failed`; None if there is none."""
        found = [finding.leak for finding in (self.alone, self.others) if finding and finding.leak]
        return self.note if self.failed else found[0] if found else None


@dataclass(frozen=True)
class Report:
    """The verdicts of one model.

    card: None if the server did not start. error: why not even the sessions alone were stepped, None if they were.
    """

    model: str
    card: Card | None = None
    verdicts: Sequence[Verdict] = ()
    error: str | None = None

    @property
    def faults(self) -> list[str]:
        """All leaks, and faults of the server, in words."""
        found = [f"{verdict.situation.name}: {verdict.fault}" for verdict in self.verdicts if verdict.fault]
        return found if self.error is None else [self.error, *found]


def isolate(options: Options, model: str, show: Callable[[int, int, str], object]) -> Report:
    """Play all situations with one model; show: called with the situations done, their number, and the next one's name.

    A situation in which the server fails is the last. Raises ValueError for options that do not fit.
    """
    check(options)
    try:
        with Stage(options, model) as stage:
            stage.alone = alone(stage)
            return Report(model, stage.host.card, _verdicts(stage, show))
    except (NotStarted, ServerFault) as error:
        return Report(model, error=str(error))


def check(options: Options) -> None:
    """Raise ValueError unless the numbers of sessions and steps can be used."""
    if not 2 <= options.sessions <= MOST_SESSIONS:
        raise ValueError(f"--sessions must be from 2 to {MOST_SESSIONS}, got {options.sessions}")
    if options.steps < LEAST_STEPS:
        raise ValueError(f"--steps must be at least {LEAST_STEPS}, got {options.steps}")


def _verdicts(stage: Stage, show: Callable[[int, int, str], object]) -> list[Verdict]:
    judge, verdicts = Judge(stage.plan, lambda: stage.host), list[Verdict]()
    for number, situation in enumerate(SITUATIONS):
        show(number, len(SITUATIONS), situation.name)
        verdict = _verdict(stage, judge, situation)
        if verdict is not None:
            verdicts.append(verdict)
            if verdict.failed:
                break
    return verdicts


def _verdict(stage: Stage, judge: Judge, situation: Situation) -> Verdict | None:
    """Play a situation and compare what was seen; None if the model has no such situation."""
    try:
        seen = situation.play(stage)
        if seen is None:
            return None
        if seen.note is not None:
            return Verdict(situation, None, note=seen.note)
        others = None if seen.others is None else judge.against_others(seen.courses, seen.others)
        return Verdict(situation, judge.against_alone(seen.courses, stage.alone), others)
    except (NotStarted, ServerFault) as error:
        return Verdict(situation, None, note=str(error), failed=True)
