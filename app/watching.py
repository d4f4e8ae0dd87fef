"""Measurements that a server takes of itself: the lag of its event loop, and the size of its data directory."""

import asyncio
import contextlib
import os
import shutil
import threading
import time
from pathlib import Path

from app.metrics import Metrics

LAG_SECONDS = 0.25
"""Seconds between two measurements of the event loop's lag."""

DATA_SECONDS = 10.0
"""Seconds between two measurements of the data directory."""

WAL_SUFFIX = "-wal"
"""The end of the name of a write-ahead log of SQLite."""


async def watch_loop(metrics: Metrics) -> None:
    """Measure how late the event loop carries out what is due, until cancelled."""
    while True:
        due = time.perf_counter() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        metrics.loop_lag.observe(max(0.0, time.perf_counter() - due))


class DataWatch:
    """A thread that measures a data directory: a disk that hangs neither holds the event loop nor the server's stop."""

    def __init__(self, metrics: Metrics, directory: Path) -> None:
        self._metrics = metrics
        self._directory = directory
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="data watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Measure no more; do not wait for the thread."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                self._measure()
            self._ended.wait(DATA_SECONDS)

    def _measure(self) -> None:
        sizes = file_sizes(self._directory)
        self._metrics.data_bytes.set(sum(sizes.values()))
        self._metrics.wal_bytes.set(sum(size for name, size in sizes.items() if name.endswith(WAL_SUFFIX)))
        self._metrics.data_free_bytes.set(shutil.disk_usage(self._directory).free)


def file_sizes(directory: Path) -> dict[str, int]:
    """Return the bytes of each file below a directory; files that vanish meanwhile are left out."""
    sizes = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                path = os.path.join(folder, name)
                sizes[path] = os.stat(path).st_size
    return sizes
