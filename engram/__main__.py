"""python -m engram: the same as the command `engram`."""

import sys

from engram.main import main

if __name__ == "__main__":
    sys.exit(main())
