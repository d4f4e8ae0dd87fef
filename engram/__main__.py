"""python -m engram: the same as the command `engram`."""

import sys

from engram.main import main

if __name__ == "__main__":
    # multiprocessing imports the main module again in the processes that it starts: this one, and with it `engram`,
    # only if it has no spec. Without `engram` such a process would look for Engram's packages on `sys.path` alone.
    __spec__ = None
    sys.exit(main())
