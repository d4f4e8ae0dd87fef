"""What the machine is, and what runs on it."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def machine() -> str:
    """Return what computes here."""
    return f"{processor()} ({platform.machine()}), {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def processor() -> str:
    """Return the model of the processor, where the system tells."""
    named = re.search(r"^model name\s*: (.*)$", CPU_INFO.read_text(), re.M) if CPU_INFO.is_file() else None
    return named[1] if named else platform.processor() or "unknown processor"


def load_average() -> str:
    """Return how many programs wanted a core in the last minute, where the system tells."""
    return f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown load"


def versions(*packages: str) -> str:
    """Return the versions of Python and of packages, without what tells one build of a version from another."""
    named = [f"{name} {metadata.version(name).split('+')[0]}" for name in packages]
    return ", ".join([f"Python {platform.python_version()}", *named])
