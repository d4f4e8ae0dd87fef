"""Profile a step or a training update: the shares of the kernels' functions in its time, by Linux's perf."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.kernels.plan import KernelsPlan
from benchmarks.kernels.sizes import SIZES
from benchmarks.kernels.training import MODELS
from benchmarks.table import Row, Table
from kernels.build import build, library_paths, variants
from kernels.library import library, why_no_library

SHOWN = 8
"""The number of functions with a row of their own."""

LEAST_SECONDS = 0.5
"""The least seconds of a profile, for enough samples."""

CASES = [f"{size}, batch 64" for size in SIZES]
CASES += ["M, batch 256", *(f"training {name}, batch 16" for name in MODELS)]


class NoPerf(RuntimeError):
    """No profile is possible here; the message gives the reason."""


def measure(plan: KernelsPlan) -> Iterator[Row]:
    perf = shutil.which("perf")
    if perf is None:
        raise NoPerf("--profile needs Linux's perf, which is not installed")
    kernels = apart(plan.directory)
    for case in CASES:
        shares = sorted(profile(perf, case, kernels, plan).items(), key=lambda pair: -pair[1])
        total = sum(share for _, share in shares)
        for name, share in shares[:SHOWN]:
            yield case, name, 100 * share / total
        yield case, "the rest", 100 * sum(share for _, share in shares[SHOWN:]) / total


def apart(directory: Path) -> Path:
    """Return the fastest library that runs here, compiled so that perf can see its functions. Raises NoPerf."""
    fastest = library()
    if fastest is None:
        raise NoPerf(f"there are no fused kernels to profile: {why_no_library()}")
    variant = dict(zip(library_paths(), variants(), strict=True))[fastest.path]
    return build(directory / "apart.so", variant, "-fno-inline-functions", "-fno-inline")


def profile(perf: str, case: str, kernels: Path, plan: KernelsPlan) -> dict[str, float]:
    """Run a case under perf and return the share of each function of the library, in percent of the process."""
    data = plan.directory / "perf.data"
    seconds = str(max(LEAST_SECONDS, plan.rounds * plan.seconds))
    command = [sys.executable, "-m", "engram.room", "benchmarks.kernels.profiled", case, str(kernels), seconds]
    run = subprocess.run([perf, "record", "-q", "-o", str(data), *command], capture_output=True, text=True)
    if run.returncode:
        raise NoPerf(f"perf record failed: {run.stderr.strip()}")
    report = [perf, "report", "-i", str(data), "--stdio", "--sort", "symbol", "--dso", kernels.name]
    printed = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^ *([\d.]+)% +\[\.\] (\w+)", printed, re.MULTILINE)
    if not found:
        raise NoPerf(f"perf took no samples in {kernels.name}: {run.stderr.strip() or printed.strip()}")
    return {name: float(share) for share, name in found}


PROFILE = Table(
    "Where the time goes",
    "Of the time that the kernels take, the shares of their functions, in percent, by `perf record`; what is inlined "
    "counts where it is.",
    ("of", "function", "%"),
    measure,
)
