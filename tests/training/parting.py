"""The program that torchrun starts several times in test_distributed: a run whose processes end with a live trainer.

torchrun --nproc-per-node 2 -m tests.training.parting OUT
"""

import atexit
import sys
from pathlib import Path

from tests.training import tiny
from training.run import train


def tell_of_threads() -> None:
    """Print the name of every thread of Gloo that still runs; of none without /proc."""
    for name in Path("/proc/self/task").glob("*/comm"):
        if "gloo" in (thread := name.read_text()):
            sys.stdout.write(f"still running: {thread}")


atexit.register(tell_of_threads)  # the first registered is called last
trainer = train(tiny.preset(updates=2), Path(sys.argv[1]), "parting", device="cpu", resuming=False, save_every=500)
