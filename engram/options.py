"""Options that several commands have, and the reading of their values."""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from app.settings import SettingsError

if TYPE_CHECKING:
    from training.own import OwnFiles

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default of an option to its help, where there is one that the help does not name."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        adds = action.default not in (None, False, []) and "default: " not in (action.help or "")
        return super()._get_help_string(action) if adds else action.help


def command(commands: Commands, name: str, about: str) -> argparse.ArgumentParser:
    """Add a command, and return its parser."""
    return commands.add_parser(name, help=about, description=about, formatter_class=Help, allow_abbrev=False)


def positive(word: str) -> int:
    """Return a whole number of at least 1."""
    number = int(word) if word.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {word!r}")
    return number


def seconds(word: str) -> float:
    """Return a number of seconds above 0."""
    number = _number(word)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {word!r}")
    return number


def positive_number(word: str) -> float:
    """Return a number above 0."""
    number = _number(word)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {word!r}")
    return number


def percent(word: str) -> float:
    """Return a percentage above 0."""
    number = _number(word)
    if not 0 < number <= 1000:
        raise argparse.ArgumentTypeError(f"expected a percentage above 0 and up to 1000, got {word!r}")
    return number


def _number(word: str) -> float:
    """Return a number, and NaN, which is in no range, for a word that is none."""
    try:
        return float(word)
    except ValueError:
        return math.nan


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Add the preset, the changes to it, and files of tasks and models of one's own."""
    parser.add_argument("preset", help="the name of a preset that comes with Engram, or the path of a .toml file")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="TABLE.KEY=VALUE",
        help="values of the preset to change, such as task.length=[1,30] optimizer.learning_rate=1e-3",
    )
    add_own(parser, "tasks", "models")


def add_own(parser: "argparse._ActionsContainer", *kinds: str) -> None:
    """Add the options that name files of one's own: --tasks, --models, or both. kinds: "tasks", "models"."""
    for kind in kinds:
        parser.add_argument(
            f"--{kind}",
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            help=f"a Python file that registers {kind} of one's own; may be given several times",
        )


def load_own(options: argparse.Namespace) -> "OwnFiles":
    """Register the tasks and models of one's own that the options name, and return their files. Raises ConfigError."""
    from training.own import OwnFiles

    own = OwnFiles(getattr(options, "tasks", ()), getattr(options, "models", ()))
    own.load()
    return own


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training: its processes, its device, how often it saves."""
    parser.add_argument("--jobs", type=positive, default=1, help="how many seeds at a time")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to train")
    parser.add_argument(
        "--threads", type=positive, default=1, help="CPU threads of a run; exact to the bit only with 1"
    )
    parser.add_argument(
        "--unroll",
        choices=["auto", "fused", "torch"],
        default="auto",
        help="by the fused kernels, or by torch; auto takes the kernels where they can train the model",
    )
    parser.add_argument("--save-every", type=positive, default=500, metavar="UPDATES", help="how often to save")
    parser.add_argument("--tensorboard", action="store_true", help="also write events for TensorBoard")


def training_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of training.run.train. Raises ConfigError, SettingsError."""
    from training.run_metrics import require_tensorboard

    if options.tensorboard:
        require_tensorboard()
    return {
        "device": device(options.device, options.threads),
        "save_every": options.save_every,
        "unroll": options.unroll,
        "tensorboard": options.tensorboard,
    }


def device(name: str, threads: int) -> str:
    """Set the number of CPU threads, and return the torch device of a --device. Raises SettingsError without CUDA."""
    import torch

    torch.set_num_threads(threads)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device cuda was asked for, but torch sees no CUDA device here")
    return name


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs; null for what is not finite")


def changes(words: Sequence[str]) -> dict[str, Any]:
    """Return KEY=VALUE words as a dictionary, values read as JSON or else as text. Raises ValueError."""
    changes = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"expected KEY=VALUE, got {word!r}")
        try:
            changes[key] = json.loads(value)
        except json.JSONDecodeError:
            changes[key] = value
    return changes
