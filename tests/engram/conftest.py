from tests.app.conftest import few

__all__ = ["few"]
