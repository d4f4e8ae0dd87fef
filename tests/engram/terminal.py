"""Commands on a terminal, as people run them."""

import contextlib
import os
import pty
import subprocess
import sys

from tests.training import tiny


def on_terminal(*words, **environment):
    """Run `engram` with a terminal of 100 columns as its outputs; return its exit status and what it printed."""
    main, side = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    environment = inherited | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment
    command = [sys.executable, "-m", "engram", *map(str, words)]
    with subprocess.Popen(command, cwd=tiny.ROOT, env=environment, stdout=side, stderr=side) as process:
        os.close(side)
        printed = b""
        with contextlib.suppress(OSError):  # Linux' end of a terminal
            while read := os.read(main, 2**16):
                printed += read
        os.close(main)
    return process.returncode, printed.decode().replace("\r\n", "\n")
