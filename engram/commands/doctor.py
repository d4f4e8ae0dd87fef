"""engram doctor: find what is wrong with an installation, and the command that mends it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from app.settings import SettingsError, load_settings
from engram.flags import with_settings
from engram.options import Json
from engram.output import counted, print_json

if TYPE_CHECKING:
    from app.doctor import Finding


@with_settings
def run(settings: Mapping[str, Any], as_json: Json = False) -> int:
    """Print the findings, and return 1 where something is wrong."""
    findings = [*_findings(settings)]
    wrong = [finding for finding in findings if finding.is_wrong]
    if as_json:
        shown = [{"part": each.part, "message": each.message, "remedy": each.remedy} for each in findings]
        print_json({"ok": not wrong, "findings": shown})
    else:
        for each in findings:
            print(f"{'WRONG' if each.is_wrong else 'ok':5}  {each.part:11}  {each.message}")
            if each.remedy:
                print(f"{'':20}mend it with: {each.remedy}")
        print(f"{counted(len(wrong), 'problem')} found")
    return 1 if wrong else 0


def _findings(given: Mapping[str, Any]) -> "Iterator[Finding]":
    from app.doctor import examine, wrong_settings

    try:
        settings = load_settings(given)
    except SettingsError as error:
        yield wrong_settings(error)
    else:
        yield from examine(settings)
