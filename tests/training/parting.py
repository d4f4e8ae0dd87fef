"""What torchrun starts several times in test_distributed: a run whose processes end with their trainer still at hand.

torchrun --nproc-per-node 2 -m tests.training.parting OUT
"""

import atexit
import sys
from pathlib import Path

from tests.training import tiny
from training.run import train


def tell_of_threads() -> None:
    """Write out the name of every thread of Gloo that is still there; where there is no /proc, of none."""
    for name in Path("/proc/self/task").glob("*/comm"):
        if "gloo" in (thread := name.read_text()):
            sys.stdout.write(f"still running: {thread}")


atexit.register(tell_of_threads)  # the first to be registered is the last to be called
trainer = train(tiny.preset(updates=2), Path(sys.argv[1]), "parting", device="cpu", resuming=False, save_every=500)
