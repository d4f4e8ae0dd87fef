from tests.app.conftest import server

__all__ = ["server"]
