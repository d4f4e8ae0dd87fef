from collections.abc import Iterator

import pytest
from tritonclient.http import InferenceServerClient

from tests.app.api.v2.triton import connected
from tests.app.harness import Server


@pytest.fixture(scope="module")
def triton(server: Server) -> Iterator[InferenceServerClient]:
    with connected(server.url) as client:
        yield client
