"""The commands and groups of this command line, on those of typer: words and mistakes.

An option whose metavar ends with SEVERAL takes all words up to the next option: `--seeds 1 2 3` is `--seeds 1 --seeds 2
--seeds 3`. Of one whose metavar ends with TOGETHER, they are one value, which `shlex.split` reads.
"""

import shlex
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from engram.help import first_sentence, write_help
from engram.nearest import suggestion

SEVERAL = " ..."
"""The end of the metavar of an option that takes several values."""

TOGETHER = f"{SEVERAL}]"
"""The end of the metavar of an option that takes one value of several words."""


class Command(TyperCommand):
    """One command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest: list[str] = super().parse_args(ctx, [*_each_with_its_option(ctx, args)])
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the options and arguments of the usage, those that are required without braces."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        write_help(self, ctx, formatter)


class Group(TyperGroup):
    """Several commands under one name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}.{suggestion(args[0], self.commands)}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        write_help(self, ctx, formatter)


class Row(NamedTuple):
    """A command in the list of all: its panel of the help, its module, and its help, whose first sentence is listed."""

    panel: str
    module: str
    about: str


class LazyGroup(Group):
    """The commands of a table. The module of one is imported when it is run, and none for the list of all."""

    table: ClassVar[Mapping[str, Row]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, row in self.table.items():
            self.add_command(Command(name, help=first_sentence(row.about), rich_help_panel=row.panel))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else self.loaded(name), rest

    def loaded(self, name: str) -> TyperCommand | TyperGroup:
        """Return a command as its module makes it: a group `commands` of several, or the function `run`."""
        row = self.table[name]
        module = import_module(row.module)
        app = module.commands if hasattr(module, "commands") else single(module.run)
        command: Any = get_command(app)
        command.name, command.help = name, row.about
        return command  # type: ignore[no-any-return]


def group() -> typer.Typer:
    """Return a group without commands; `add` adds them."""
    return typer.Typer(cls=Group, add_completion=False)


def add(commands: typer.Typer, name: str, about: str, run: Callable[..., int]) -> None:
    """Add a command to a group. about: its help."""
    commands.command(name, cls=Command, help=about)(run)


def single(run: Callable[..., int]) -> typer.Typer:
    """Return a function as a command."""
    app = typer.Typer(add_completion=False)
    app.command(cls=Command)(run)
    return app


def explained(error: typer.TyperException) -> str:
    """Return a mistake on the command line as one line, with the nearest right word."""
    name = getattr(getattr(error, "ctx", None), "command_path", "engram")
    param = getattr(error, "param", None)
    message = error.message.removeprefix("Value error, ").rstrip(".")
    if param is not None:
        message = f"{_shown(param)}: {message or 'it needs a value, and there is none'}"
    if message == "Missing command":
        message += f": one of {', '.join(error.ctx.command.commands)}"  # type: ignore[attr-defined]
    nearest = suggestion(getattr(error, "option_name", ""), getattr(error, "possibilities", None) or ())
    message += nearest and f".{nearest}"
    return f"{name}: {' '.join(message.split())} (see {name} --help)"


def _shown(param: Any) -> str:
    return param.opts[0] if isinstance(param, TyperOption) else str(param.display_name_raw)


def _each_with_its_option(ctx: Any, words: Sequence[str]) -> Iterator[str]:
    """Yield the words with the option before each of several values. Raises typer.BadParameter where there is none."""
    options = {flag: param for param in ctx.command.params if isinstance(param, TyperOption) for flag in param.opts}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option = options.get(word)
        if word == "--":
            yield from (word, *rest)
            return
        if option is None or option.is_flag:
            yield word
            continue
        values = _values(option, rest, options)
        if not values and not ctx.resilient_parsing:
            raise typer.BadParameter("", ctx=ctx, param=option)
        del rest[: len(values)]
        yield from _paired(word, values, option.metavar or "")


def _values(option: TyperOption, words: Sequence[str], options: Container[str]) -> Sequence[str]:
    """Return the words that are values of an option: none before another option."""
    if not words or words[0] in options:
        return []
    found = 1
    if (option.metavar or "").endswith((SEVERAL, TOGETHER)):
        while found < len(words) and (not words[found].startswith("-") or _is_number(words[found])):
            found += 1
    return words[:found]


def _paired(flag: str, values: Sequence[str], metavar: str) -> list[str]:
    """Return the flag before each of its values; alone where it has none, as while a shell completes them."""
    if values and metavar.endswith(TOGETHER):
        values = [shlex.join(values)]
    return [word for value in values for word in (flag, value)] or [flag]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
