"""A flag of the command line for every setting of the server: --max-batch for max_batch, and so on."""

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from app.settings import Settings

CONFIG = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="TOML file with settings by their names, e.g. port = 8000"),
]

METAVARS = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}
"""The words for the values of settings, by their types."""


def with_settings(run: Callable[..., int]) -> Callable[..., int]:
    """Have a command take every setting as a flag: its argument `settings` maps name -> value, None where not given."""

    @functools.wraps(run)
    def run_with_settings(**given: Any) -> int:
        settings = {name: given.pop(name) for name in flags}
        return run(settings=settings, **given)

    flags = {"config": CONFIG} | {name: _flag(name, field) for name, field in Settings.model_fields.items()}
    added = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=flag) for name, flag in flags.items()]
    own = [
        parameter.replace(kind=Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(run).parameters.items()
        if name != "settings"
    ]
    run_with_settings.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    return run_with_settings


def _flag(name: str, field: Any) -> Any:
    """Return the annotation of a setting's flag. The values of all but choices are left to the settings to read."""
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        return Annotated[bool | None, typer.Option(f"{flag}/--no-{flag.removeprefix('--')}", help=field.description)]
    about = field.description if field.default is None else f"{field.description} (default: {field.default})"
    if get_origin(field.annotation) is Literal:
        return Annotated[field.annotation | None, typer.Option(flag, help=about)]
    if get_origin(field.annotation) in (list, dict):
        metavar = "NAME" if get_origin(field.annotation) is list else "NAME=N"
        repeated = f"{field.description}, or the flag repeated"
        return Annotated[list[str] | None, typer.Option(flag, metavar=metavar, help=repeated)]
    return Annotated[str | None, typer.Option(flag, metavar=METAVARS[_kind(field.annotation)], help=about)]


def _kind(annotation: Any) -> type:
    """Return X of X, X | None and Annotated[X, ...] | None."""
    while get_args(annotation):
        annotation = get_args(annotation)[0]
    kind: type = annotation
    return kind
