"""One thread and one seed for every test of the kernels."""

from tests.determinism import one_thread, seed

__all__ = ["one_thread", "seed"]
