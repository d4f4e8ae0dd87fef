import pytest

from tests.app.conftest import few
from tests.training import tiny

__all__ = ["few"]


@pytest.fixture
def checkpoint(tmp_path):
    tiny.checkpoint(tmp_path / "out", updates=3)
    return tmp_path / "out"
