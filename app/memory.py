"""The memory that a server may use: that of the machine, or of its container."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

UNKNOWN = 2**30
"""Bytes that are assumed where the system does not say how much memory there is."""


_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # glibc has it


def trim() -> None:
    """Return the memory that was freed to the system, where the allocator can."""
    if _malloc_trim is not None:
        _malloc_trim(0)


def memory_limit(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process may use: the least of the machine's and of the cgroups it is in.

    root: the directory in which /proc and /sys lie.
    """
    return min([_machine_bytes(root), *_cgroup_limits(root)])


def _machine_bytes(root: Path) -> int:
    """Return the bytes of the machine's memory."""
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # on Windows
        return UNKNOWN


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Yield the limits of the cgroups that this process is in, and of those above them.

    In a container, the cgroup's own directory is often mounted at the top: its limit is found there.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield from _limits(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")


def _limits(mounted: Path, path: str, name: str) -> Iterator[int]:
    inner = PurePosixPath(path.lstrip("/"))
    for group in (inner, *inner.parents):
        text = "" if ".." in group.parts else _text(mounted / group / name).strip()
        if text.isdigit() and int(text) > 0:
            yield int(text)


def _text(path: Path) -> str:
    """Return the content of a file, nothing if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
