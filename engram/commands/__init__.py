"""The commands: one module for each.

To add `engram NAME`:

1. Write engram/commands/NAME.py with a function `run`, which returns the exit status. Its parameters are the arguments
   and options (`Annotated[..., typer.Option(...)]`; those of several commands are in engram/options.py), and a
   `typer.Context`, where the command is recorded (`recorded(context)`). For commands below it, write `commands =
   group()` in place of `run`, and `add(commands, NAME, ABOUT, FUNCTION)`. Import what is slow inside of functions.
   A ValueError, an OSError or an EngramError ends it with one line and the status 1. Print by
   engram.output, with --json.
2. Add its help to ABOUT, below its panel: the first sentence is in the list of all commands.
3. Describe it in docs/commands.md, and add it to OPTIONS in tests/engram/test_main.py, which names what is missing.
"""

from typing import ClassVar

from engram.cli import LazyGroup, Row

TRAIN, MODELS, SERVE, OPERATE, MEASURE = "Train", "Models", "Serve", "Operate", "Measure"

ABOUT = {
    TRAIN: {
        "train": "Train a model from a preset and leave a checkpoint.",
        "zoo": "Train several seeds of a preset and make a checkpoint to serve of the best.",
        "presets": "List the presets that come with Engram, or show one.",
        "evaluate": "Measure the errors of a checkpoint on fresh sequences.",
        "plot": "Draw the figures of a checkpoint, a run, or the runs of several seeds.",
    },
    MODELS: {
        "models": "List the checkpoints of a directory: kind, sizes, task and recorded errors.",
        "card": "Write the README of a checkpoint, with the figures that are there.",
        "export": "Write the ONNX graph of one step, checked against torch over 100 steps.",
        "import": "Make a checkpoint, ready to be served, of a model from elsewhere: any recurrent ONNX graph, or "
        "weights of an original implementation.",
        "push": "Copy a checkpoint to a directory, an archive or the Hugging Face Hub.",
        "pull": "Fetch a checkpoint from a directory, an archive or the Hugging Face Hub, and check it.",
        "infer": "Run a sequence through a model, of a checkpoint or of a server.",
    },
    SERVE: {
        "serve": "Serve every checkpoint of a directory over HTTP and WebSocket. Each setting is also read from the "
        "environment (ENGRAM_PORT, ...) and from a TOML file (--config); flags win over both.",
        "sessions": "List, open, step, fork and record the sessions of a server.",
        "keys": "Create, list and revoke the keys of a server, also while it runs.",
    },
    OPERATE: {
        "doctor": "Say what is wrong with this installation, and the command that mends it. Looks at Python, packages, "
        "kernels, checkpoints, data, keys, limits and port, with the settings of engram serve. Nothing is changed. The "
        "exit status is 1 where something is wrong.",
        "docs": "Read this documentation in a browser.",
        "store": "Copy, bring up to date, and look at the store of a server.",
        "check": "Look for damage in the sessions that a server keeps. A server that has a data directory must be "
        "stopped.",
    },
    MEASURE: {
        "bench": "Measure on this machine the figures that docs/performance.md has of another.",
        "isolate": "Look for the state of one session in another. It serves a model, steps sessions alone and beside "
        "others that do their worst, and compares outputs and states. The status is 1 if one session is seen in "
        "another.",
    },
}
"""The help of every command, by its panel."""

MODULES = {"import": "import_"}
"""The modules of commands whose name is no name of a module."""


class Commands(LazyGroup):
    """All commands."""

    table: ClassVar = {
        name: Row(panel, f"{__name__}.{MODULES.get(name, name)}", about)
        for panel, commands in ABOUT.items()
        for name, about in commands.items()
    }
