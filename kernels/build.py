"""Build the libraries of the kernels: with zig's C compiler, which comes as a wheel, or the system's.

python -m kernels.build builds them; with --if-changed, only if one is missing or a source has changed.
"""

import argparse
import ctypes
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kernels.layout import differences, header

HERE = Path(__file__).parent

SOURCES = HERE / "src"

LINUX, MAC = "-linux-gnu.2.17", "-macos"

TARGETS = {
    ("Linux", "x86_64"): {"v4": ["x86_64" + LINUX, "x86_64_v4"], "v3": ["x86_64" + LINUX, "x86_64_v3"]},
    ("Linux", "aarch64"): {"": ["aarch64" + LINUX, "baseline"]},
    ("Darwin", "x86_64"): {"v3": ["x86_64" + MAC, "x86_64_v3"]},
    ("Darwin", "arm64"): {"": ["aarch64" + MAC, "baseline"]},
}
"""The libraries of each machine, the fastest first: zig's names of the target and of the processor.

v3 needs AVX2 and FMA, v4 AVX-512; on ARM there is one, which needs NEON. The library says whether it runs here.
"""

OPTIONS = ["-O3", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror"]
"""Without contraction, so that each operation is rounded as the source has it; never -ffast-math, which changes the
mode of the whole process when the library is loaded."""


class BuildFailed(RuntimeError):
    """The library cannot be built here; the message says why."""


def library_paths() -> list[Path]:
    """Return the paths of this machine's libraries, built or not, the fastest first."""
    machine = platform.system(), platform.machine()
    names = ["-".join(filter(None, ("libengram", machine[0].lower(), machine[1], variant))) for variant in variants()]
    return [HERE / f"{name}.so" for name in names]


def fingerprint() -> str | None:
    """Return the hash of the sources and options of libraries; None where no sources are installed."""
    sources = sorted(SOURCES.glob("[!.]*.[ch]"))
    read = [f"{path.name} {len(path.read_bytes())}\n".encode() + path.read_bytes() for path in sources]
    read.append(repr((header(), OPTIONS, TARGETS)).encode())
    return hashlib.sha256(b"".join(read)).hexdigest() if sources else None


def are_current() -> bool:
    """Return whether all libraries of this machine were built from the sources as they are."""
    sources = (fingerprint() or "").encode()
    return all(path.is_file() and sources in path.read_bytes() for path in library_paths())


def build_all() -> list[Path]:
    """Compile the libraries of this machine and return their paths. Raises BuildFailed."""
    if not variants():
        raise BuildFailed(f"there are no kernels for {platform.system()} on {platform.machine()}")
    return [_checked(build(path, variant)) for path, variant in zip(library_paths(), variants(), strict=True)]


def _checked(path: Path) -> Path:
    differing = differences(ctypes.CDLL(str(path)))
    if differing:
        path.unlink()
        raise BuildFailed(f"the C headers and layout.py disagree: {'; '.join(differing)}")
    return path


def build(path: Path, variant: str, *options: str) -> Path:
    """Compile one library to `path` and return it. options: more for the compiler. Raises BuildFailed."""
    target, processor = variants()[variant]
    unfinished = path.with_suffix(f".{os.getpid()}")
    with tempfile.TemporaryDirectory() as directory:
        declared = f'#define SOURCES "{fingerprint()}"\n{header()}'
        Path(directory, "declared.h").write_text(declared)
        command = [*_compiler(), "-target", target, f"-mcpu={processor}", *OPTIONS, *options, "-I", directory]
        command += ["-o", str(unfinished), str(SOURCES / "engram.c")]
        run = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 (a fixed command)
    if run.returncode:
        raise BuildFailed(f"{' '.join(command)}: {run.stderr.strip() or run.returncode}")
    unfinished.replace(path)
    return path


def variants() -> dict[str, list[str]]:
    """Return the targets of this machine's libraries, the fastest first; none where there are no kernels."""
    return TARGETS.get((platform.system(), platform.machine()), {})


def _compiler() -> list[str]:
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    zig = shutil.which("zig")
    if zig is None:
        raise BuildFailed("zig's C compiler was not found: pip install ziglang")
    return [zig, "cc"]


def main() -> int:
    """Build the libraries and print their paths. Returns the exit status: 1 where they cannot be built."""
    parser = argparse.ArgumentParser("python -m kernels.build", description="Build the fused kernels.")
    parser.add_argument("--if-changed", action="store_true", help="only if one is missing or a source has changed")
    if parser.parse_args().if_changed and are_current():
        return 0
    try:
        sys.stdout.writelines(f"{path}\n" for path in build_all())
    except BuildFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
