"""Reports of isolation: for a terminal, as JSON, and as tables of Markdown for docs/isolation.md."""

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.isolation import Report, Verdict
from benchmarks.isolation.judge import Finding
from benchmarks.isolation.situations import SITUATIONS
from benchmarks.isolation.stage import Options
from benchmarks.table import line

EQUAL = "equal to the bit"


def lines(report: Report, options: Options) -> Iterator[str]:
    """Yield the lines of a model's report: its head, each situation, and the result."""
    card = report.card
    yield f"{report.model}: {f'{card.kind} by {card.backend}, ' if card else ''}{setting(options)}"
    yield f"  {'situation':<11} {'against the session alone':<41} against other strangers"
    for verdict in report.verdicts:
        alone, others = _sentence(verdict.alone), _others(verdict.others)
        yield f"  {verdict.situation.name:<11} {verdict.note or f'{alone:<41} {others}'.rstrip()}"
    if report.error:
        yield f"  FAULT {report.error}"
    for verdict in report.verdicts:
        if verdict.fault:
            yield f"  {'FAULT' if verdict.failed else 'LEAK '} {verdict.situation.name}: {verdict.fault}"
    if not report.faults:
        yield f"  no session is seen in another: {len(report.verdicts)} situations"


def as_json(report: Report) -> dict[str, Any]:
    """Return a report for programs."""
    situations = [
        {
            "situation": verdict.situation.name,
            "about": verdict.situation.about,
            "alone": _finding(verdict.alone),
            "others": _finding(verdict.others),
            "note": verdict.note,
            "fault": verdict.fault,
        }
        for verdict in report.verdicts
    ]
    card = {"kind": report.card.kind, "backend": report.card.backend} if report.card else {}
    return {"model": report.model, **card, "error": report.error, "situations": situations}


def markdown(reports: Sequence[Report]) -> Iterator[str]:
    """Yield the lines of a table: a row for each model, a column for each situation that one of them has."""
    names = [situation.name for situation in SITUATIONS if any(_verdict(each, situation.name) for each in reports)]
    yield line(["model", "back end", *names])
    yield f"|{'|'.join(['---'] * (len(names) + 2))}|"
    for report in reports:
        yield line(
            [
                f"`{report.model}`",
                report.card.backend if report.card else "**not served**",
                *(_cell(_verdict(report, name)) for name in names),
            ]
        )


def situations() -> Iterator[str]:
    """Yield the lines of a table of all situations."""
    yield from ("| situation | a session is |", "|---|---|")
    for situation in SITUATIONS:
        yield f"| `{situation.name}` | {situation.about} |"


def setting(options: Options) -> str:
    """Return the settings of a run in words."""
    return (
        f"{options.sessions} sessions beside {options.sessions} strangers, {options.steps} steps, seed {options.seed}"
    )


def _sentence(finding: Finding | None) -> str:
    if finding is None:
        return ""
    if finding.leak:
        return "LEAK"
    if finding.is_equal:
        return EQUAL
    return f"within {finding.largest:.1e} (rounding {finding.allowed:.1e})"


def _others(finding: Finding | None) -> str:
    return "not compared: batches of other sizes" if _is_empty(finding) else _sentence(finding)


def _is_empty(finding: Finding | None) -> bool:
    """Return whether no step was held to the first rule, which is all that a comparison with other strangers has."""
    return finding is not None and not (finding.held or finding.leak)


def _finding(finding: Finding | None) -> dict[str, Any] | None:
    if finding is None:
        return None
    return {
        "compared": finding.compared,
        "held": finding.held,
        "equal": finding.is_equal,
        "difference": finding.largest,
        "allowed": finding.allowed,
        "leak": finding.leak,
    }


def _verdict(report: Report, name: str) -> Verdict | None:
    return next((verdict for verdict in report.verdicts if verdict.situation.name == name), None)


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    if verdict.fault:
        return "**failed**" if verdict.failed else "**leak**"
    if verdict.alone is None:
        return "not served"
    if _is_empty(verdict.others):
        return "not compared"
    return "=" if verdict.alone.is_equal else f"{verdict.alone.largest:.0e}"
