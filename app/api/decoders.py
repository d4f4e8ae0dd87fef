"""Processes that decode large requests, so that no other request waits for them.

A parser, and the freeing of what it has made, holds the interpreter's lock until it is done, which takes long for
millions of small lists. A thread would not help, because the event loop needs the same lock.

    event loop            a thread               a process
    ----------            --------               ---------
    call() ----- data --> _ask() ---- pipe ----> function(data, ...)
       ^---- outcome -----'  ^------- pipe ----- what it returned or raised: arrays, and few small values

The processes start when they are first needed, and end with their pipe, also if the server is killed.
"""

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from app.errors import EngramError, OutOfMemory, stopping
from app.memory import trim

T = TypeVar("T")

logger = logging.getLogger(__name__)

LARGE = 2**16
"""Bytes from which a request is decoded in another process; a smaller one holds the event loop for milliseconds."""

PROCESSES = 2
"""Each takes tens of MB of memory; with a single one, large requests would wait for each other."""

ALONE = 2**20
"""Bytes from which a request is decoded while no other of that size is: small lists take fifty times their bytes."""

LONGEST_SECONDS = 60.0
"""The longest time for one request; a process that takes longer is killed."""


def is_large(data: bytes) -> bool:
    """Return whether a request is decoded in another process."""
    return len(data) >= LARGE


class Decoders:
    """Up to PROCESSES processes that decode large requests, one at a time each."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(PROCESSES, "decoder")
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._all: set[_Process] = set()
        self._largest = asyncio.Semaphore(1)
        self._closed = False

    async def call(self, function: Callable[..., T], data: bytes, *arguments: Any) -> T:
        """Return function(data, *arguments), called in this process if the data are small.

        function: of a module; its arguments and its result are pickled. Raises the errors of the function, OutOfMemory
        if its process has ended meanwhile, ShuttingDown.
        """
        if not is_large(data):
            return function(data, *arguments)
        async with self._largest if len(data) >= ALONE else contextlib.nullcontext():
            return await self._call(function, data, arguments)

    async def _call(self, function: Callable[..., T], data: bytes, arguments: tuple[Any, ...]) -> T:
        if self._closed:
            raise stopping()
        loop = asyncio.get_running_loop()
        try:
            outcome: T | Exception = await loop.run_in_executor(self._threads, self._ask, function, data, arguments)
        except asyncio.CancelledError:
            if self._closed:
                raise stopping() from None
            raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self) -> None:
        """Kill the processes, even at work."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in list(self._all):
            process.kill()

    def _ask(self, function: Callable[..., Any], data: bytes, arguments: tuple[Any, ...]) -> Any:
        process = self._take()
        too_long = threading.Timer(LONGEST_SECONDS, process.kill)
        too_long.start()
        try:
            outcome = process.ask(function, data, arguments)
        except (EOFError, OSError) as error:
            self._forget(process)
            if self._closed:
                return stopping()
            logger.error("a process that decodes requests has ended, or was killed because it took too long: %r", error)
            return _out_of_memory()
        finally:
            too_long.cancel()
        self._idle.put(process)
        return outcome

    def _take(self) -> "_Process":
        """Return an idle process, or a new one."""
        with contextlib.suppress(queue.Empty):
            while True:
                process = self._idle.get(block=False)
                if process.is_alive:
                    return process
                self._forget(process)
        process = _Process()
        self._all.add(process)
        return process

    def _forget(self, process: "_Process") -> None:
        self._all.discard(process)
        process.kill()


class _Process:
    """A process that carries out calls, seen from this end of its pipe."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_carry_out_calls, args=(theirs,), name="decoder", daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, function: Callable[..., Any], data: bytes, arguments: tuple[Any, ...]) -> Any:
        """Return the result of a call, or its exception. Raises EOFError or OSError if the process has ended."""
        self._pipe.send((function, arguments))
        self._pipe.send_bytes(data)
        return self._pipe.recv()

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        """Kill the process; a pending `ask` then raises EOFError."""
        self._process.kill()
        self._process.join()


def _carry_out_calls(pipe: "Connection[Any, Any]") -> None:
    """Carry out the calls that come through the pipe, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then closes the pipe
    gc.disable()  # requests have no cycles, and the search for them among millions of lists takes long
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments = pipe.recv()
            pipe.send(_outcome(function, pipe.recv_bytes(), arguments))
            trim()


def _outcome(function: Callable[..., Any], data: bytes, arguments: tuple[Any, ...]) -> Any:
    try:
        return function(data, *arguments)
    except EngramError as error:
        return error.with_traceback(None)
    except MemoryError:
        return _out_of_memory()
    except Exception as error:
        error.add_note(traceback.format_exc())  # for the server's log: a traceback cannot be pickled
        return error.with_traceback(None)


def _out_of_memory() -> OutOfMemory:
    return OutOfMemory("not enough memory to decode the request: send fewer steps at a time, or try later")
