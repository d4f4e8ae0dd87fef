"""Describe the machine, its load and the versions of packages."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def machine() -> str:
    """Return the system, the processor and its cores."""
    return f"{processor()} ({platform.machine()}), {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def processor() -> str:
    """Return the model of the processor, if the system names it."""
    named = re.search(r"^model name\s*: (.*)$", CPU_INFO.read_text(), re.M) if CPU_INFO.is_file() else None
    return named[1] if named else platform.processor() or "unknown processor"


def load_average() -> str:
    """Return the system's load average of the last minute, if it has one."""
    return f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown load"


def versions(*packages: str) -> str:
    """Return the versions of Python and of packages, without the local parts that name builds."""
    named = [f"{name} {metadata.version(name).split('+')[0]}" for name in packages]
    return ", ".join([f"Python {platform.python_version()}", *named])
