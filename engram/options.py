"""Options that several commands have, and the reading of their values."""

import json
import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engram.cli import SEVERAL

if TYPE_CHECKING:
    from training.own import OwnFiles

NOT_RECORDED = ("--resume", "--save", "--json")
"""Switches that the command on record leaves out: without them it does or prints the same from the start."""


def recorded(context: typer.Context) -> str:
    """Return the command as it was typed, without the switches of NOT_RECORDED."""
    words: Sequence[str] = context.find_root().obj
    return shlex.join(["engram", *(word for word in words if not _is_left_out(word, context))])


def _is_left_out(word: str, context: typer.Context) -> bool:
    """Return whether a word is one of NOT_RECORDED, and not an option with a value."""
    return word in NOT_RECORDED and context.params.get(_name(word)) is True


def _name(switch: str) -> str:
    return {"--json": "as_json"}.get(switch, switch.removeprefix("--"))


def whole(word: object) -> int:
    """Return a whole number."""
    try:
        return int(str(word))
    except ValueError:
        raise ValueError(f"expected a whole number, got {word!r}") from None


def positive(word: object) -> int:
    """Return a whole number of at least 1."""
    number = int(str(word)) if str(word).isdecimal() else 0
    if number < 1:
        raise ValueError(f"expected a whole number of at least 1, got {word!r}")
    return number


def one_of(choices: Sequence[str]) -> Callable[[object], str]:
    """Return a function that returns a word that is one of the choices."""

    def read(word: object) -> str:
        if word not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}, got {word!r}")
        return str(word)

    return read


def seconds(word: object) -> float:
    """Return a number of seconds above 0."""
    number = _number(word)
    if not 0 < number < math.inf:
        raise ValueError(f"expected a number of seconds above 0, got {word!r}")
    return number


def positive_number(word: object) -> float:
    """Return a number above 0."""
    number = _number(word)
    if not 0 < number < math.inf:
        raise ValueError(f"expected a number above 0, got {word!r}")
    return number


def percent(word: object) -> float:
    """Return a percentage above 0."""
    number = _number(word)
    if not 0 < number <= 1000:
        raise ValueError(f"expected a percentage above 0 and up to 1000, got {word!r}")
    return number


def _number(word: object) -> float:
    """Return a number, and NaN, which is in no range, for a word that is none."""
    try:
        return float(str(word))
    except ValueError:
        return math.nan


def preset_names() -> list[str]:
    """Return the names of the presets that come with Engram, without the import of torch."""
    return sorted(path.stem for path in preset_files())


def preset_files() -> list[Path]:
    """Return the files of the presets that come with Engram."""
    import training

    return sorted(Path(next(iter(training.__path__)), "presets").glob("*.toml"))


def checkpoint_names() -> list[str]:
    """Return the names of the checkpoints in the directory `checkpoints`, for a shell to complete."""
    return sorted(path.parent.name for path in Path("checkpoints").glob("*/manifest.json"))


Preset = Annotated[
    str,
    typer.Argument(
        metavar="PRESET",
        help="the name of a preset that comes with Engram (engram presets lists them), or the path of a .toml file",
        autocompletion=preset_names,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar=f"TABLE.KEY=VALUE{SEVERAL}",
        help="values of the preset to change, such as task.length=[1,30] optimizer.learning_rate=1e-3",
    ),
]
OwnTasks = Annotated[
    list[Path] | None,
    typer.Option(
        "--tasks",
        metavar="FILE",
        help="a Python file that registers tasks of one's own; may be given several times",
    ),
]
OwnModels = Annotated[
    list[Path] | None,
    typer.Option(
        "--models",
        metavar="FILE",
        help="a Python file that registers models of one's own; may be given several times",
    ),
]
Jobs = Annotated[int, typer.Option("--jobs", parser=positive, metavar="N", help="how many seeds at a time")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="where it runs")]
RunThreads = Annotated[
    int,
    typer.Option("--threads", parser=positive, metavar="N", help="CPU threads of a run; exact to the bit only with 1"),
]
Unroll = Annotated[
    Literal["auto", "fused", "captured", "compiled", "torch"],
    typer.Option(
        "--unroll",
        help="by the fused kernels, on a GPU as captured graphs, compiled before or not, or by torch; auto takes the "
        "kernels or, on a GPU, captured graphs, where they can train the model",
    ),
]
SaveEvery = Annotated[int, typer.Option("--save-every", parser=positive, metavar="UPDATES", help="how often to save")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="also write events for TensorBoard")]
Sequences = Annotated[
    int, typer.Option("--sequences", parser=positive, metavar="N", help="fresh sequences of each measurement")
]
Checkpoint = Annotated[Path, typer.Argument(metavar="DIR", help="the checkpoint")]
Checkpoints = Annotated[Path, typer.Option("--checkpoints", metavar="DIR", help="directory of the models")]
Hub = Annotated[
    str | None,
    typer.Option("--hub", metavar="URL", help="the hub of hf:// (default: that of HF_ENDPOINT, or huggingface.co)"),
]
Config = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="the TOML file with the settings of the server")
]
Json = Annotated[bool, typer.Option("--json", help="print JSON for programs; null for what is not finite")]


def load_own(tasks: Sequence[Path] | None, models: Sequence[Path] | None = None) -> "OwnFiles":
    """Register tasks and models of one's own, and return their files. Raises ConfigError."""
    from training.own import OwnFiles

    own = OwnFiles(tasks or (), models or ())
    own.load()
    return own


def training_options(device_name: str, threads: int, unroll: str, save_every: int, tensorboard: bool) -> dict[str, Any]:
    """Return the keyword arguments of training.run.train. Raises ConfigError, SettingsError."""
    from training.run_metrics import require_tensorboard

    if tensorboard:
        require_tensorboard()
    return {
        "device": device(device_name, threads),
        "save_every": save_every,
        "unroll": unroll,
        "tensorboard": tensorboard,
    }


def device(name: str, threads: int) -> str:
    """Set the number of CPU threads, and return the torch device of a --device. Raises SettingsError without CUDA."""
    import torch

    from app.settings import SettingsError

    torch.set_num_threads(threads)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device cuda was asked for, but torch sees no CUDA device here")
    return name


def changes(words: Sequence[str] | None) -> dict[str, Any]:
    """Return KEY=VALUE words as a dictionary, values read as JSON or else as text. Raises ValueError."""
    changes = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"expected KEY=VALUE, got {word!r}")
        try:
            changes[key] = json.loads(value)
        except json.JSONDecodeError:
            changes[key] = value
    return changes
