"""python -m engram.room MODULE [ARGUMENT ...]: run a module of Engram's packages, as `python -m MODULE` does.

It finds Engram's package also where the caller's directory, or one of PYTHONPATH, has another of the same name.
"""

import runpy
import sys


def main() -> None:
    """Run the module that the first argument names, with the other arguments."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m engram.room MODULE [ARGUMENT ...]")
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
