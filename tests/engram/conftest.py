"""What the tests of the commands share with those of training and of the server."""

import pytest

from tests.app.conftest import few
from tests.determinism import one_thread, seed
from tests.training import tiny
from tests.training.conftest import registered_as_before

__all__ = ["few", "one_thread", "registered_as_before", "seed"]


@pytest.fixture
def checkpoint(tmp_path):
    tiny.checkpoint(tmp_path / "out", updates=3)
    return tmp_path / "out"
