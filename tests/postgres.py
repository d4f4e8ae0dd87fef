"""A real PostgreSQL for tests: one server for all tests of a process, and a schema of its own for each test."""

import itertools
import os
from collections.abc import Iterator

import pytest

from benchmarks.postgres import Postgres, PostgresMissing, running_postgres

NUMBERS = itertools.count()


def missing(error: PostgresMissing) -> None:
    """Skip the test, with the command that installs PostgreSQL; fail in continuous integration, which has it."""
    if os.environ.get("CI"):
        pytest.fail(str(error))
    pytest.skip(str(error))


def started(*settings: str) -> Iterator[Postgres]:
    """Yield a running server, which is stopped after that."""
    try:
        with running_postgres(*settings) as server:
            yield server
    except PostgresMissing as error:
        missing(error)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Run one server; tests that stop or fill it start one of their own."""
    yield from started()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """Run a server for one test, which may kill, stop and fill it."""
    yield from started()


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """Return the URL of an empty schema, which is dropped after the test."""
    with postgres.schema(f"test_{next(NUMBERS)}") as url:
        yield url
