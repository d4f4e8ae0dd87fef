"""The command line: train, zoo, evaluate, plot, export, import, card, models, bench, serve, check."""

import argparse
import json
import math
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from app.errors import EngramError
from app.settings import SettingsError, add_settings_flags, load_settings
from training import TOLD

if TYPE_CHECKING:
    from benchmarks.serve import Options
    from training.config import Preset
    from training.seeds import End
    from training.trainer import Trainer

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

ORIGINALS = ("deepmind-dnc", "dnc-pytorch", "ntm-lasagne", "pytorch-ntm", "tf-rnn-cell")
"""The keys of training.importers.FORMATS, here for a command line that starts without torch."""

KERNEL_TABLES = ("step", "arena", "threads", "calls", "training", "training-threads")
"""The keys of benchmarks.kernels.TABLES."""

KERNEL_SIZES = ("S", "M", "L", "NTM")
"""The keys of benchmarks.kernels.sizes.SIZES."""

NOT_RECORDED = ("--resume", "--save", "--json")
"""Switches that are left out of the command on record, which does or prints the same from the start."""

SERVED_BACKENDS = ("fused", "onnx")
"""The keys of benchmarks.served_steps.BACKENDS."""

SERVED_PATHS = ("ws-json", "ws-msgpack", "post", "steps", "streams", "infer")
"""The keys of benchmarks.serve.paths.PATHS."""

SERVED_DURABILITIES = ("ack", "none", "interval")
"""The keys of benchmarks.serve.servers.SERVERS that are Engram."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, or 1 after an error that was told, or 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    options.command_line = shlex.join(["engram", *(word for word in words if not _is_left_out(word, options))])
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        return _fail(
            f"{error}: this command needs more packages: in the checkout of Engram, pip install -c constraints.txt "
            "-e '.[train]'"
        )
    except (*TOLD, EngramError) as error:
        return _fail(str(error))
    return status


def _is_left_out(word: str, options: argparse.Namespace) -> bool:
    """Return whether a word is one of NOT_RECORDED, and not an option with a value."""
    return word in NOT_RECORDED and getattr(options, word.removeprefix("--")) is True


def _fail(message: str) -> int:
    print(f"engram: {'; '.join(line.strip() for line in message.splitlines())}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="engram", description="Train neural networks with memory (DNC, NTM, RNN), export and serve them."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_zoo(commands)
    _add_evaluate(commands)
    _add_plot(commands)
    _add_export(commands)
    _add_import(commands)
    _add_card(commands)
    _add_models(commands)
    _add_bench(commands)
    _add_serve(commands)
    _add_check(commands)
    return parser


def _version() -> str:
    try:
        return f"engram {metadata.version('engram')}"
    except metadata.PackageNotFoundError:
        return "engram, not installed"


def _add(commands: Commands, name: str, about: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=about,
        description=about,
        formatter_class=_Help,
        allow_abbrev=False,
    )


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells the default of an option where there is one and the option does not tell it in words."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        tells = action.default not in (None, False, []) and "default: " not in (action.help or "")
        return super()._get_help_string(action) if tells else action.help


def _positive(word: str) -> int:
    number = int(word) if word.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {word!r}")
    return number


def _seconds(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {word!r}")
    return number


def _percent(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1000:
        raise argparse.ArgumentTypeError(f"expected a percentage above 0 and up to 1000, got {word!r}")
    return number


def _add_train(commands: Commands) -> None:
    parser = _add(commands, "train", "Train a model from a preset and leave a checkpoint.")
    _add_preset(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the checkpoint goes")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint in DIR, exactly; with more --updates, also from one that has finished",
    )
    parser.add_argument(
        "--init-from", type=Path, metavar="DIR", help="begin with the weights of this checkpoint, trained or imported"
    )
    parser.add_argument("--seed", type=int, help="of weights and data (default: the preset's)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED", help="several, side by side, into DIR/seed-SEED; each resumes"
    )
    parser.add_argument("--updates", type=int, help="at most so many updates (default: the preset's)")
    _add_how_to_train(parser)
    parser.set_defaults(run=_train)


def _add_preset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", help="the name of a preset that comes with Engram, or the path of a .toml file")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="TABLE.KEY=VALUE",
        help="values of the preset to change, such as task.length=[1,30] optimizer.learning_rate=1e-3",
    )
    _add_tasks(parser)


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tasks",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file that registers tasks of one's own; may be given several times",
    )


def _load_tasks(options: argparse.Namespace) -> None:
    """Register the tasks of the files that were given. Raises ConfigError."""
    from training.tasks.own import load_tasks

    for file in options.tasks:
        load_tasks(file)


def _add_how_to_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=_positive, default=1, help="how many seeds at a time")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to train")
    parser.add_argument(
        "--threads", type=_positive, default=1, help="CPU threads of a run; exact to the bit only with 1"
    )
    parser.add_argument(
        "--unroll",
        choices=["auto", "fused", "torch"],
        default="auto",
        help="by the fused kernels, or by torch; auto takes the kernels where they can train the model",
    )
    parser.add_argument("--save-every", type=_positive, default=500, metavar="UPDATES", help="how often to save")
    parser.add_argument("--tensorboard", action="store_true", help="also write events for TensorBoard")


def _train(options: argparse.Namespace) -> int:
    from training.config import load_preset
    from training.distributed import launcher
    from training.run import train

    _load_tasks(options)
    preset = load_preset(options.preset, _changes(options.set))
    preset = preset.with_training(seed=options.seed, updates=options.updates)
    if options.seeds and options.seed is not None:
        raise ValueError("--seed trains one seed and --seeds several: give one of them")
    if options.seeds:
        ends = _train_seeds(options, preset, options.out, init_from=options.init_from, training_on=options.resume)
        return 1 if any(ends.values()) else 0
    command = launcher() + options.command_line
    trainer = train(
        preset,
        options.out,
        command,
        resuming=options.resume,
        init_from=options.init_from,
        training_on=options.resume,
        **_how_to_train(options),
    )
    if trainer.processes.leads:
        _tell_of_training(trainer, options.out, command, options.tasks)
    return 0 if trainer.finished else 130


def _tell_of_training(trainer: "Trainer", out: Path, command: str, tasks: Sequence[Path]) -> None:
    progress = trainer.progress
    own = [word for file in tasks for word in ("--tasks", str(file))]
    evaluate, plot, export = (
        shlex.join(["engram", *words])
        for words in (["evaluate", str(out), *own], ["plot", str(out), *own], ["export", str(out)])
    )
    print(f"{out}: {progress.update} updates, {progress.sequences} sequences, weights in model.safetensors")
    if not trainer.finished:
        print(f"Interrupted. Go on with: {command} --resume")
        return
    if math.isfinite(progress.validation_errors):
        print(f"Validation: {progress.validation_errors:g} {trainer.preset.task.unit} per sequence.")
    print(f"Next: {evaluate}    {plot}    {export}")


def _how_to_train(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of training.run.train. Raises ConfigError, SettingsError."""
    from training.metrics import require_tensorboard

    if options.tensorboard:
        require_tensorboard()
    return {
        "device": _device(options.device, options.threads),
        "save_every": options.save_every,
        "unroll": options.unroll,
        "tensorboard": options.tensorboard,
    }


def _train_seeds(options: argparse.Namespace, preset: "Preset", out: Path, **how: Any) -> "dict[int, End]":
    """Train several seeds, tell what became of each, and return it. how: more options of training.run.train."""
    from training.distributed import process_count
    from training.seeds import train_seeds
    from training.table import seed_lines

    if process_count() > 1:
        raise ValueError("several seeds are trained by a process each: start them without torchrun, with --jobs")
    twice = [seed for seed, count in Counter(options.seeds).items() if count > 1]
    if twice:
        raise ValueError(f"--seeds: {twice[0]} is there twice, and would be one run: give each seed once")
    how |= _how_to_train(options) | {"threads": options.threads, "tasks": options.tasks}
    ends = train_seeds(preset, options.seeds, out, options.command_line, options.jobs, **how)
    print("", *seed_lines(out, ends), sep="\n")
    return ends


def _changes(words: Sequence[str]) -> dict[str, Any]:
    """Return what KEY=VALUE words say, values as JSON where they are, else as text. Raises ValueError."""
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


def _add_zoo(commands: Commands) -> None:
    parser = _add(commands, "zoo", "Train several seeds of a preset and make a checkpoint to serve of the best.")
    _add_preset(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where it goes (default: checkpoints/PRESET)")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where the runs go (default: runs/PRESET)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4], metavar="SEED", help="of the runs")
    parser.add_argument("--sequences", type=_positive, default=1000, help="fresh sequences of each measurement")
    _add_how_to_train(parser)
    parser.set_defaults(run=_zoo)


def _zoo(options: argparse.Namespace) -> int:
    from training.config import load_preset
    from training.zoo import choose, publish, require_replaceable

    _load_tasks(options)
    preset = load_preset(options.preset, _changes(options.set))
    runs = options.runs or Path("runs") / preset.name
    out = options.out or Path("checkpoints") / preset.name
    require_replaceable(out)
    ends = _train_seeds(options, preset, runs)
    publish(choose(preset, runs, ends, print), out, options.command_line, options.sequences, print, options.tasks)
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    _tell_of_serving(out)
    return 0


def _add_evaluate(commands: Commands) -> None:
    parser = _add(commands, "evaluate", "Measure the errors of a checkpoint on fresh sequences.")
    parser.add_argument(
        "directory", type=Path, metavar="DIR", nargs="?", help="the checkpoint; with --all a directory of checkpoints"
    )
    parser.add_argument("--all", action="store_true", help="measure all that is recorded of every checkpoint again")
    parser.add_argument(
        "--at",
        nargs="+",
        action="append",
        metavar="KEY=VALUE",
        help="options of the task, such as length=50; may be given several times (default: what is recorded)",
    )
    parser.add_argument("--sequences", type=_positive, default=1000, help="fresh sequences of each measurement")
    parser.add_argument("--memory-size", type=_positive, metavar="N", help="memory slots (default: as trained)")
    parser.add_argument("--seed", type=int, help="of the sequences (default: one that training never uses)")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the task for all measurements, such as directory=DIR",
    )
    parser.add_argument("--threads", type=_positive, default=1, help="CPU threads")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to run")
    parser.add_argument("--save", action="store_true", help="record the figures in the checkpoint's manifest")
    _add_tasks(parser)
    _add_json(parser)
    parser.set_defaults(run=_evaluate)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for programs; null for what is not finite")


def _print_json(value: Any) -> None:
    print(json.dumps(_finite(value), indent=2))


def _finite(value: Any) -> Any:
    """Return a value for JSON, which has no NaN and no infinity: null in their place."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _evaluate(options: argparse.Namespace) -> int:
    from models.manifest import read_manifest
    from training.checkpoint import save_evaluation
    from training.config import MOST_SEED, Point
    from training.evaluation import EVALUATION_SEED
    from training.table import Measurement, all_checkpoints, checkpoint_rows, heading

    _load_tasks(options)
    if options.all and (options.at or options.memory_size or options.save):
        raise ValueError("--all measures what is recorded: it takes no --at, --memory-size or --save")
    if not options.all and options.directory is None:
        raise ValueError("which checkpoint? Give its DIR, or --all")
    how = Measurement(
        options.sequences,
        EVALUATION_SEED if options.seed is None else options.seed,
        _device(options.device, options.threads),
        _changes(options.set),
    )
    if not 0 <= how.seed <= MOST_SEED:
        raise ValueError(f"--seed must be from 0 to {MOST_SEED}, got {how.seed}")
    if options.save and set(how.options) - {"directory"}:
        raise ValueError("--save records what --at says: --set may only give the directory of the data then")
    tell: Callable[[str], object] = str if options.json else print
    if options.all:
        reports = all_checkpoints(options.directory or Path("checkpoints"), how, tell)
        if options.json:
            _print_json(reports)
        return 1 if any(report["damaged"] for report in reports) else 0
    at = options.at or ([[]] if options.memory_size else [])
    points = [Point(_changes(words), options.memory_size) for words in at]
    tell(heading(options.directory))
    rows = checkpoint_rows(options.directory, points, how, tell)
    if options.json:
        _print_json({"checkpoint": str(options.directory), "rows": rows})
    if options.save:
        details = {"command": options.command_line}
        save_evaluation(options.directory, read_manifest(options.directory), [row | details for row in rows])
    return 0


def _add_plot(commands: Commands) -> None:
    parser = _add(commands, "plot", "Draw the figures of a checkpoint, a run, or the runs of several seeds.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="the checkpoint, the run, or the directory of runs")
    parser.add_argument("--out", type=Path, metavar="OUT", help="where the figures go (default: DIR)")
    _add_tasks(parser)
    parser.set_defaults(run=_plot)


def _plot(options: argparse.Namespace) -> int:
    from training.plots import plot_all

    _load_tasks(options)
    for path in plot_all(options.directory, options.out or options.directory):
        print(path)
    return 0


def _add_export(commands: Commands) -> None:
    parser = _add(commands, "export", "Write the ONNX graph of one step, checked against torch over 100 steps.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="the checkpoint")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    path = _exported(options.directory)
    print(f"{path}: {path.stat().st_size:,} bytes, equal to torch over 100 steps at batch 1, 2 and 5")
    _tell_of_serving(options.directory)
    return 0


def _exported(directory: Path) -> Path:
    from training.export import export
    from training.progress import counting

    with counting("checking against torch", "step") as after_step:
        return export(directory, after_step)


def _tell_of_serving(checkpoint: Path) -> None:
    from training.listing import parent

    print(f"Next: {shlex.join(['engram', 'serve', '--checkpoints', str(parent(checkpoint))])}")


def _add_import(commands: Commands) -> None:
    parser = _add(commands, "import", "Turn weights of an original implementation into a checkpoint, exported.")
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="npz of the variables by their own names and a config; of dnc-pytorch and pytorch-ntm also a state_dict",
    )
    parser.add_argument("--format", required=True, choices=ORIGINALS, help="which original")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the checkpoint goes")
    parser.add_argument("--cell", metavar="NAME", help="the cell to take, where the file holds several")
    parser.add_argument(
        "--task",
        nargs="+",
        metavar="KEY=VALUE",
        help="the name and options of what the model was trained on, such as name=copy bits=8, to evaluate and plot it",
    )
    _add_tasks(parser)
    parser.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> int:
    from models.manifest import ONNX_FILE
    from training.importers import import_checkpoint
    from training.tasks import build_task

    _load_tasks(options)
    task = build_task(_changes(options.task)) if options.task else None
    command = options.command_line
    imported = import_checkpoint(options.format, options.file, options.out, options.cell, command, task, _exported)
    parameters = sum(parameter.numel() for parameter in imported.model.parameters())
    print(f"{options.out}: {parameters:,} parameters imported; {ONNX_FILE} is equal to torch")
    _tell_of_serving(options.out)
    return 0


def _add_card(commands: Commands) -> None:
    parser = _add(commands, "card", "Write the README of a checkpoint, with the figures that are there.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="the checkpoint")
    _add_tasks(parser)
    parser.set_defaults(run=_card)


def _card(options: argparse.Namespace) -> int:
    from training.card import write_card

    _load_tasks(options)
    print(write_card(options.directory))
    return 0


def _add_models(commands: Commands) -> None:
    parser = _add(commands, "models", "List the checkpoints of a directory: kind, sizes, task and recorded errors.")
    parser.add_argument(
        "directory", type=Path, metavar="DIR", nargs="?", default=Path("checkpoints"), help="directory of checkpoints"
    )
    _add_json(parser)
    parser.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> int:
    from training.listing import HEAD, describe, line

    models = list(describe(options.directory))
    if options.json:
        _print_json(models)
    else:
        print(HEAD, *map(line, models), sep="\n")
    return 1 if any("error" in model for model in models) else 0


def _add_bench(commands: Commands) -> None:
    parser = _add(commands, "bench", "Measure on this machine what docs/performance.md tells of another.")
    benchmarks = parser.add_subparsers(title="benchmarks", required=True, metavar="NAME")
    _add_bench_kernels(benchmarks)
    _add_bench_training(benchmarks)
    _add_bench_serve(benchmarks)
    _add_bench_peers(benchmarks)
    _add_bench_served_steps(benchmarks)
    _add_bench_durability(benchmarks)
    _add_bench_sessions(benchmarks)
    _add_bench_fairness(benchmarks)


def _add_bench_kernels(benchmarks: Commands) -> None:
    parser = _add(benchmarks, "kernels", "The fused kernels beside all else that computes the same, checked first.")
    for name, choices, about in (
        ("tables", KERNEL_TABLES, "which tables"),
        ("sizes", KERNEL_SIZES, "which models step"),
    ):
        parser.add_argument(f"--{name}", nargs="+", choices=choices, default=choices, metavar="NAME", help=about)
    parser.add_argument(
        "--batches", type=_positive, nargs="+", metavar="N", help="batches of every table, if not each table's own"
    )
    parser.add_argument("--rounds", type=_positive, default=5, help="turns of which the median is taken")
    parser.add_argument("--seconds", type=_seconds, default=0.3, help="time of a turn")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="public implementations to train beside, if any")
    parser.add_argument("--profile", action="store_true", help="also where the time goes, by Linux's perf")
    parser.add_argument("--quick", action="store_true", help="one call a turn, one turn: to see that all works")
    parser.set_defaults(run=_bench_kernels)


def _bench_kernels(options: argparse.Namespace) -> int:
    from benchmarks.kernels import run

    rounds, seconds = (1, 0.0) if options.quick else (options.rounds, options.seconds)
    run(
        options.tables,
        options.sizes,
        options.batches,
        rounds,
        seconds,
        options.peers,
        options.command_line,
        options.profile,
    )
    return 0


def _add_bench_training(benchmarks: Commands) -> None:
    parser = _add(benchmarks, "training", "Whole updates of the trainer beside those of public implementations.")
    parser.add_argument("--batches", type=_positive, nargs="+", default=[16, 1], metavar="N", help="batches")
    parser.add_argument("--updates", type=_positive, default=20, help="updates of a turn, at least")
    parser.add_argument("--rounds", type=_positive, default=5, help="turns of which the median is taken")
    parser.add_argument("--seconds", type=_seconds, default=0.3, help="time of a turn, at least")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="public implementations to train beside, if any")
    parser.add_argument("--quick", action="store_true", help="two updates a turn, one turn: to see that all works")
    parser.set_defaults(run=_bench_training)


def _bench_training(options: argparse.Namespace) -> int:
    from benchmarks.training import run

    updates, rounds, seconds = (2, 1, 0.0) if options.quick else (options.updates, options.rounds, options.seconds)
    run(options.batches, updates, rounds, seconds, options.peers, options.command_line)
    return 0


def _add_bench_serve(benchmarks: Commands) -> None:
    parser = _add(benchmarks, "serve", "What a served request costs, by each way to the server, beside the floors.")
    parser.add_argument("--paths", nargs="+", choices=SERVED_PATHS, default=SERVED_PATHS, help="which ways")
    parser.add_argument("--idle", type=_positive, metavar="N", help="measure N idle WebSockets in place of all else")
    _add_serve_options(parser, connections=[1, 32, 256, 1000])
    parser.set_defaults(run=_bench_serve)


def _add_bench_peers(benchmarks: Commands) -> None:
    parser = _add(benchmarks, "peers", "Steps of sessions served by Engram and by other servers, to the same requests.")
    parser.add_argument(
        "--packages", type=Path, metavar="DIR", help="where LitServe and Ray Serve are (default: beside Engram)"
    )
    _add_serve_options(parser, connections=[1, 32, 256])
    parser.set_defaults(run=_bench_peers)


def _add_serve_options(parser: argparse.ArgumentParser, connections: Sequence[int]) -> None:
    _add_served_model(parser)
    parser.add_argument("--connections", type=_positive, nargs="+", default=connections, help="at a time")
    parser.add_argument(
        "--durability",
        nargs="+",
        choices=SERVED_DURABILITIES,
        default=["ack", "none"],
        help="of Engram's servers; the first is the one whose ratios are told",
    )
    parser.add_argument("--rounds", type=_positive, default=3, help="turns of each server of which the median is taken")
    parser.add_argument("--seconds", type=_seconds, default=1.0, help="time of each turn")
    parser.add_argument(
        "--open-loop",
        type=_percent,
        nargs="+",
        default=[],
        metavar="PERCENT",
        help="also requests at fixed times: so many percent of the rate, as in 50 80 95",
    )
    parser.add_argument("--triton", type=Path, metavar="DIR", help="also NVIDIA Triton, which a package put there")
    parser.add_argument("--before", type=Path, metavar="DIR", help="also Engram of another checkout, built, in DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to a JSON file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the processor time of a request, as PNG")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the servers write meanwhile (default: .)")


def _bench_serve(options: argparse.Namespace) -> int:
    from benchmarks.serve import idle, run

    if options.idle:
        idle.run(options.checkpoints, options.model, options.idle, options.data_root, options.command_line)
        return 0
    run(_serve_options(options), options.paths)
    return 0


def _bench_peers(options: argparse.Namespace) -> int:
    from benchmarks.serve import run_peers

    run_peers(_serve_options(options, packages=options.packages))
    return 0


def _serve_options(options: argparse.Namespace, packages: Path | None = None) -> "Options":
    from benchmarks.serve import Options

    return Options(
        checkpoints=options.checkpoints,
        model=options.model,
        connections=options.connections,
        durabilities=options.durability,
        rounds=options.rounds,
        seconds=options.seconds,
        percents=options.open_loop,
        data_root=options.data_root,
        command=options.command_line,
        json_file=options.json,
        plot_file=options.plot,
        triton=options.triton,
        packages=packages,
        before=options.before,
    )


def _add_bench_served_steps(benchmarks: Commands) -> None:
    parser = _add(benchmarks, "served-steps", "Session-steps per second over WebSocket, beside the back end alone.")
    _add_served_model(parser)
    parser.add_argument("--sessions", type=_positive, nargs="+", default=[1, 32, 256], help="concurrent sessions")
    parser.add_argument("--backend", choices=SERVED_BACKENDS, default="fused", help="what computes the steps")
    parser.add_argument("--rounds", type=_positive, default=3, help="measurements of which the median is taken")
    parser.add_argument("--seconds", type=_seconds, default=3.0, help="time of each measurement")
    parser.set_defaults(run=_bench_served_steps)


def _bench_served_steps(options: argparse.Namespace) -> int:
    from benchmarks.served_steps import run

    run(options.checkpoints, options.model, options.sessions, options.backend, options.rounds, options.seconds)
    return 0


def _add_served_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="directory of the models")
    parser.add_argument("--model", default="dnc-copy", help="which of them")


def _add_bench_durability(benchmarks: Commands) -> None:
    parser = _add(benchmarks, "durability", "Session-steps per second over WebSocket with each durability.")
    _add_served_model(parser)
    parser.add_argument("--sessions", type=_positive, nargs="+", default=[1, 64, 1024], help="concurrent sessions")
    parser.add_argument("--rounds", type=_positive, default=5, help="turns of which the median is taken")
    parser.add_argument("--seconds", type=_seconds, default=3.0, help="time of each turn")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the servers write meanwhile (default: .)")
    parser.set_defaults(run=_bench_durability)


def _bench_durability(options: argparse.Namespace) -> int:
    from benchmarks.durability import run

    run(
        options.checkpoints,
        options.model,
        options.sessions,
        options.rounds,
        options.seconds,
        options.data_root,
        options.command_line,
    )
    return 0


def _add_bench_sessions(benchmarks: Commands) -> None:
    parser = _add(benchmarks, "sessions", "What many open sessions take, and what it costs to wake one.")
    _add_served_model(parser)
    parser.add_argument("--sessions", type=_positive, default=100_000, help="how many are opened")
    parser.add_argument("--max-resident", type=_positive, default=4096, help="how many may be in memory")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the server writes meanwhile (default: .)")
    parser.set_defaults(run=_bench_sessions)


def _bench_sessions(options: argparse.Namespace) -> int:
    from benchmarks.sessions import run

    run(
        options.checkpoints,
        options.model,
        options.sessions,
        options.max_resident,
        options.data_root,
        options.command_line,
    )
    return 0


def _add_bench_fairness(benchmarks: Commands) -> None:
    parser = _add(benchmarks, "fairness", "How long the worst requests keep a session of another model waiting.")
    _add_served_model(parser)
    parser.add_argument("--neighbour", default="lstm-copy", help="the model of the session that waits")
    parser.add_argument("--requests", nargs="+", metavar="NAME", help="which requests, if not all")
    parser.add_argument("--rounds", type=_positive, default=5, help="tries of which the median is taken")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the server writes meanwhile (default: .)")
    parser.set_defaults(run=_bench_fairness)


def _bench_fairness(options: argparse.Namespace) -> int:
    from benchmarks.fairness import chosen, run

    run(
        options.checkpoints,
        options.model,
        options.neighbour,
        chosen(options.requests),
        options.rounds,
        options.data_root,
        options.command_line,
    )
    return 0


def _add_serve(commands: Commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="Serve every checkpoint of a directory over HTTP and WebSocket.",
        description="Serve every checkpoint of a directory over HTTP and WebSocket. Each setting is also read from "
        "the environment (ENGRAM_PORT, ...) and from a TOML file (--config); flags win over both.",
    )
    add_settings_flags(parser)
    parser.set_defaults(run=_serve)


def _add_check(commands: Commands) -> None:
    parser = _add(
        commands, "check", "Look for damage in what a server keeps of its sessions; the server must be stopped."
    )
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="the data directory")
    _add_json(parser)
    parser.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    """Print a line for everything that is damaged, and return 1 where anything is."""
    from tqdm import tqdm

    from app.loading import open_data
    from training.progress import counting

    store = open_data(options.data)
    problems: list[str] = []
    sessions = 0
    try:
        with counting("sessions", "session") as show:

            def tell(done: int, of: int) -> None:
                nonlocal sessions
                sessions = of
                show(done, of)

            for problem in store.check(tell):
                problems.append(problem)
                if not options.json:
                    tqdm.write(problem)
    finally:
        store.close()
    if options.json:
        _print_json({"data": str(options.data), "sessions": sessions, "problems": problems})
    else:
        print(f"{options.data}: {_counted(sessions, 'open session')}, {_counted(len(problems), 'problem')} found")
    return 1 if problems else 0


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _serve(options: argparse.Namespace) -> int:
    from app.server import serve

    return serve(load_settings(vars(options)))


def _device(name: str, threads: int) -> str:
    """Return the torch device that `name` means here, after setting the number of CPU threads."""
    import torch

    torch.set_num_threads(threads)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device cuda was asked for, but torch sees no CUDA device here")
    return name


if __name__ == "__main__":
    sys.exit(main())
