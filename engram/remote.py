"""A server as a command reaches it: its address, its key, and its refusals as errors of one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from engram.options import seconds

if TYPE_CHECKING:
    from engram_client import Client

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[
    str, typer.Option("--url", envvar="ENGRAM_URL", show_envvar=True, metavar="URL", help="address of the server")
]
ServerKey = Annotated[
    str | None, typer.Option("--key", metavar="KEY", help="key of the server (default: that of ENGRAM_KEY)")
]
Timeout = Annotated[
    float, typer.Option("--timeout", parser=seconds, metavar="S", help="time for which it is tried again, in seconds")
]


@contextmanager
def connected(url: str, key: str | None, timeout: float) -> "Iterator[Client]":
    """Yield a client of a server. Raises ValueError, RuntimeError for what the server refuses."""
    try:
        from engram_client import Client, EngramClientError, InvalidKey
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"{error}: a server is reached by engram_client: in the checkout, pip install ./client"
        ) from error
    try:
        with Client(url, timeout, key=key) as client:
            yield client
    except InvalidKey as error:
        raise RuntimeError(f"{error}; give it by --key or ENGRAM_KEY") from error
    except EngramClientError as error:
        raise RuntimeError(str(error)) from error
