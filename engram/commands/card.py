"""engram card: write the README of a checkpoint."""

from engram.options import Checkpoint, OwnTasks, load_own


def run(directory: Checkpoint, tasks: OwnTasks = None) -> int:
    """Write it, and print its path."""
    from training.card import write_card

    load_own(tasks)
    print(write_card(directory))
    return 0
