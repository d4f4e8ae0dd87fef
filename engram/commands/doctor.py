"""engram doctor: find what is wrong with an installation, and the command that mends it."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.settings import SettingsError, add_settings_flags, load_settings
from engram.options import Commands, add_json
from engram.output import counted, print_json

if TYPE_CHECKING:
    from app.doctor import Finding


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="Say what is wrong with this installation, and the command that mends it.",
        description="Look at Python, packages, kernels, checkpoints, data, keys, limits and port, with the settings "
        "of engram serve. Nothing is changed. The exit status is 1 where something is wrong.",
    )
    add_settings_flags(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the findings, and return 1 where something is wrong."""
    findings = [*_findings(options)]
    wrong = [finding for finding in findings if finding.is_wrong]
    if options.json:
        shown = [{"part": each.part, "message": each.message, "remedy": each.remedy} for each in findings]
        print_json({"ok": not wrong, "findings": shown})
    else:
        for each in findings:
            print(f"{'WRONG' if each.is_wrong else 'ok':5}  {each.part:11}  {each.message}")
            if each.remedy:
                print(f"{'':20}mend it with: {each.remedy}")
        print(f"{counted(len(wrong), 'problem')} found")
    return 1 if wrong else 0


def _findings(options: argparse.Namespace) -> "Iterator[Finding]":
    from app.doctor import examine, wrong_settings

    try:
        settings = load_settings(vars(options))
    except SettingsError as error:
        yield wrong_settings(error)
    else:
        yield from examine(settings)
