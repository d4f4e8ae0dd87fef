"""engram bench: measure on this machine."""

from engram.commands.bench import durability, fairness, graphs, kernels, peers, serve, served_steps, sessions, training
from engram.options import Commands, command


def add(commands: Commands) -> None:
    parser = command(commands, "bench", "Measure on this machine the figures that docs/performance.md has of another.")
    benchmarks = parser.add_subparsers(title="benchmarks", required=True, metavar="NAME")
    for benchmark in (kernels, training, serve, graphs, peers, served_steps, durability, sessions, fairness):
        benchmark.add(benchmarks)
