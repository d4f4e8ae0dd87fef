"""The help of a command: with boxes and colours on a terminal, as plain text elsewhere."""

import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

from engram.examples import EXAMPLES

Sections: TypeAlias = dict[str, list[tuple[str, str]]]
"""Titles of sections, and the lines of each: a name and its meaning."""


def write_help(command: Any, context: Any, formatter: Any) -> None:
    """Print the help of a command on a terminal; elsewhere write it by a formatter of typer."""
    sections = _sections(command, context)
    examples = EXAMPLES.get(context.command_path, ())
    if sys.stdout.isatty():
        _print_boxes(context.get_usage(), command.help or "", examples, sections)
        return
    command.format_usage(context, formatter)
    command.format_help_text(context, formatter)
    if examples:
        with formatter.section("Examples"):
            formatter.write("".join(f"  {example}\n" for example in examples))
    for title, lines in sections.items():
        with formatter.section(title):
            formatter.write_dl(lines)


def first_sentence(text: str) -> str:
    """Return the first sentence of a text, without its full stop."""
    return text.split(". ")[0].removesuffix(".")


def _sections(command: Any, context: Any) -> Sections:
    """Return the arguments, options and commands of a command, by their panels."""
    sections: Sections = {}
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None:
            is_option = param.param_type_name == "option"
            title = param.rich_help_panel or ("Options" if is_option else "Arguments")
            name = record[0] if is_option else param.metavar
            sections.setdefault(title, []).append((name, record[1]))
    for name, below in getattr(command, "commands", {}).items():
        sections.setdefault(below.rich_help_panel or "Commands", []).append((name, first_sentence(below.help or "")))
    return sections


def _print_boxes(usage: str, text: str, examples: Sequence[str], sections: Sections) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(f"\n{usage}", style="bold"), Text(f"\n{text}\n"), sep="\n")
    if examples:
        indented = "".join(f"  {example}\n" for example in examples)  # no box: they are there to be copied
        console.print(Text("Examples", style="bold"), Text(indented), sep="\n", soft_wrap=True)
    widest = max((len(name) for lines in sections.values() for name, _ in lines), default=0)
    for title, lines in sections.items():
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold cyan", width=min(widest, console.width // 3), overflow="fold")
        table.add_column()
        for name, meaning in lines:
            table.add_row(Text(name), Text(meaning))
        console.print(Panel(table, title=title, title_align="left", border_style="dim"))
