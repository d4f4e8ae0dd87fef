from tests.app.conftest import data, server

__all__ = ["data", "server"]
