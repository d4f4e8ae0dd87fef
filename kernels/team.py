"""Threads that share the calls of the kernels. Standard library only."""

import ctypes
import os
import weakref
from collections.abc import Sequence

from kernels.layout import KernelCall
from kernels.library import Library


class Team:
    """The calling thread and others, which wait in the library: they need no Python, nor its lock.

    After a call they look for the next one for a millisecond before they sleep. Not thread-safe.

    threads: the most that make calls at once, with the calling one.
    """

    def __init__(self, library: Library, threads: int) -> None:
        self.threads = threads
        self._library, self._handle, self._process = library, None, 0

    def make(self, calls: Sequence[KernelCall]) -> None:
        """Make all calls, and return when all are made."""
        if len(calls) == 1:
            self._library.make_calls(None, ctypes.byref(calls[0]), 1)
        else:
            self._library.make_calls(self._opened(), (KernelCall * len(calls))(*calls), len(calls))

    def _opened(self) -> int | None:
        """Return the threads, those of this process: a process that was forked has none of its parent's."""
        if self._process != os.getpid() and self.threads > 1:
            self._process = os.getpid()
            self._handle = self._library.open_team(self.threads)
            weakref.finalize(self, _close, self._library, self._handle, self._process)
        return self._handle


def _close(library: Library, handle: int | None, process: int) -> None:
    if handle is not None and process == os.getpid():
        library.close_team(handle)
