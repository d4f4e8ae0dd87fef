from collections.abc import Iterator

import pytest

from engram_client import Client
from tests.app.conftest import data, server
from tests.app.harness import Server

__all__ = ["data", "server"]


@pytest.fixture
def api(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client
