"""engram zoo: train several seeds of a preset, and publish the best."""

import argparse
from pathlib import Path

from engram.commands.train import train_seeds
from engram.options import Commands, add_preset, add_training, changes, command, load_own, positive
from engram.output import print_serve_command


def add(commands: Commands) -> None:
    parser = command(commands, "zoo", "Train several seeds of a preset and make a checkpoint to serve of the best.")
    add_preset(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where it goes (default: checkpoints/PRESET)")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where the runs go (default: runs/PRESET)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4], metavar="SEED", help="of the runs")
    parser.add_argument("--sequences", type=positive, default=1000, help="fresh sequences of each measurement")
    add_training(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from training.preset import load_preset
    from training.zoo import choose, publish, require_replaceable

    own = load_own(options)
    preset = load_preset(options.preset, changes(options.set))
    runs = options.runs or Path("runs") / preset.name
    out = options.out or Path("checkpoints") / preset.name
    require_replaceable(out)
    ends = train_seeds(options, preset, runs, own)
    publish(choose(preset, runs, ends, print), out, options.command_line, options.sequences, print, own)
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    print_serve_command(out)
    return 0
