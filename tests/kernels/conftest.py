"""One thread and one seed for every test of the kernels, and the kernels in float64."""

import pytest

from kernels import build
from kernels.library import Library
from tests.determinism import one_thread, seed

__all__ = ["one_thread", "seed"]


@pytest.fixture(scope="session")
def float64(tmp_path_factory):
    """The kernels in float64, where only a wrong equation can differ."""
    path = tmp_path_factory.mktemp("kernels") / "float64.so"
    return Library(build.build(path, list(build.variants())[-1], "-DENGRAM_FLOAT64"))
