"""Build the library of the kernels: with zig's C compiler, which comes as a wheel, or the system's.

python -m models.kernels.build
"""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

SOURCE = HERE / "engram.c"

TARGETS = {
    ("Linux", "x86_64"): ["-target", "x86_64-linux-gnu.2.17", "-mcpu=x86_64_v3"],
    ("Linux", "aarch64"): ["-target", "aarch64-linux-gnu.2.17"],
    ("Darwin", "x86_64"): ["-target", "x86_64-macos", "-mcpu=x86_64_v3"],
    ("Darwin", "arm64"): ["-target", "aarch64-macos"],
}
"""What zig is told for each machine: a portable library that needs AVX2 and FMA on x86, NEON on ARM."""

OPTIONS = ["-O3", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror"]
"""Without contraction, so that sums are rounded where the source says; never -ffast-math, which changes the mode of the
whole process when the library is loaded."""


class BuildFailed(RuntimeError):
    """The library cannot be built here; the message says why."""


def library_path() -> Path:
    """Return where the library of this machine lies, built or not."""
    return HERE / f"libengram-{platform.system().lower()}-{platform.machine()}.so"


def build(*options: str) -> Path:
    """Compile the library and return its path. Raises BuildFailed."""
    target = TARGETS.get((platform.system(), platform.machine()))
    if target is None:
        raise BuildFailed(f"there are no kernels for {platform.system()} on {platform.machine()}")
    path = library_path()
    unfinished = path.with_suffix(f".{os.getpid()}")
    command = [*_compiler(), *target, *OPTIONS, *options, "-o", str(unfinished), str(SOURCE)]
    run = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 (a fixed command)
    if run.returncode:
        raise BuildFailed(f"{' '.join(command)}: {run.stderr.strip() or run.returncode}")
    unfinished.replace(path)
    return path


def _compiler() -> list[str]:
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    zig = shutil.which("zig")
    if zig is None:
        raise BuildFailed("zig's C compiler was not found: pip install ziglang")
    return [zig, "cc"]


if __name__ == "__main__":
    sys.stdout.write(f"{build()}\n")
