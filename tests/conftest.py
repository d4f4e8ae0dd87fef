"""What all tests share: generated examples are not held to a time, for machines differ; and signals work.

A shell has what it runs in the background ignore SIGINT, and so would the servers that tests start there.
Threads of torch, here and in the processes that tests start, are one each: several tests run at a time, their models
are small, and threads that wait keep the cores busy.
Without a CUDA driver, Triton's kernels are interpreted, on the CPU.
All clients of httpx share one TLS context, which no test uses: each would read the certificates of all authorities,
which takes longer than most requests.
"""

import ctypes.util
import functools
import os
import signal
from collections import Counter
from collections.abc import Iterable

import httpx._transports.default
import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import database_url, own_postgres, postgres  # noqa: F401 (fixtures of all tests)

settings.register_profile("engram", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("engram")

os.environ.setdefault("OMP_NUM_THREADS", "1")
if ctypes.util.find_library("cuda") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

transports = httpx._transports.default
transports.create_ssl_context = functools.cache(transports.create_ssl_context)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SLOW_FIXTURES = {"browser", "data", "report", "training_report", "serve_run"}
"""A test is slow that uses Chromium, `data` for a server of its own, or a benchmark that is run for several tests."""

SLOW_SECONDS = 3
"""A test that takes longer and is not marked slow is named at the end of a run."""

FAST_PARAMETERS = 2
"""The parameters of a test that --fast runs it with, at most."""


@pytest.fixture(scope="session", autouse=True)
def _shared_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make the directory that all processes of a run share; the environment has it as TESTS_SHARED."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    directory.mkdir(exist_ok=True)
    os.environ["TESTS_SHARED"] = str(directory)


def pytest_addoption(parser: pytest.Parser) -> None:
    words = f"leave out slow tests, and all but the first {FAST_PARAMETERS} parameters of each"
    parser.addoption("--fast", action="store_true", help=words)
    parser.addoption("--examples", type=int, default=20, help="random requests of each operation, for schemathesis")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what a slow fixture makes so, and begin with the files of slow tests, which none should end with."""
    for item in items:
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if config.getoption("fast"):
        kept = fast(items)
        config.hook.pytest_deselected(items=list(set(items).difference(kept)))
        items[:] = kept


def fast(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the tests that are not slow, of each the first few parameters."""
    seen: Counter[str] = Counter()
    kept = []
    for item in items:
        name = item.nodeid.partition("[")[0]
        seen[name] += 1
        if seen[name] <= FAST_PARAMETERS and not item.get_closest_marker("slow"):
            kept.append(item)
    return kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that were slow and are not marked so."""
    for report in slow_without_mark(terminalreporter.stats.get("passed", ())):
        terminalreporter.write_line(f"{report.duration:.0f} s and not marked slow: {report.nodeid}")


def slow_without_mark(reports: Iterable[pytest.TestReport]) -> list[pytest.TestReport]:
    slow = [report for report in reports if report.duration > SLOW_SECONDS and "slow" not in report.keywords]
    return sorted(slow, key=lambda report: -report.duration)
