"""Errors of the network, close codes and refusals of proxies, as errors of the client."""

import socket

import httpx
import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response

from engram_client import (
    Client,
    InvalidKey,
    InvalidRequest,
    NotFound,
    SessionGone,
    Unreachable,
)
from engram_client.errors import Lost
from engram_client.wires import border
from tests.client.kinds import subclasses


@pytest.mark.parametrize("kind", [*subclasses(httpx.RequestError), ConnectionResetError, TimeoutError, EOFError])
def test_every_way_to_lose_a_connection_is_a_loss(kind):
    with pytest.raises(Lost) as lost, border():
        raise kind("so it is")
    never_sent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    assert lost.value.reached == (not issubclass(kind, never_sent))
    assert str(lost.value) == f"{kind.__name__}: so it is"


@pytest.mark.parametrize(
    ("code", "kind"),
    [(4404, NotFound), (4410, SessionGone), (4422, InvalidRequest), (1009, InvalidRequest)]
    + [(code, Lost) for code in (1001, 1006, 1007, 1011, 1012, 1013, 3000, 4000)],
)
def test_close_code_is_an_error_or_a_loss(code, kind):
    close = Close(code, "why") if code != 1006 else None
    with pytest.raises(kind, match="why" if close else "no close frame"), border():
        raise ConnectionClosedError(close, None)


@pytest.mark.parametrize(
    ("status", "kind"), [(401, InvalidKey), (404, NotFound), (429, Lost), (503, Lost), (502, Lost)]
)
def test_handshake_refused_by_a_proxy_is_an_error_or_loss(status, kind):
    with pytest.raises(kind, match=f"HTTP status {status}: no"), border():
        raise InvalidStatus(Response(status, "", Headers(), b"no"))


def test_nothing_at_the_other_end_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with Client(url, timeout=0.3) as client, pytest.raises(Unreachable) as raised:
        client.models()
    assert str(raised.value).startswith(f"{url} gave no answer within 0.3 s (")
    assert (raised.value.problem["url"], raised.value.problem["seconds"]) == (url, 0.3)
    assert raised.value.problem["tries"] > 1
    assert isinstance(raised.value.__cause__, httpx.ConnectError)


def test_silence_at_the_other_end_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.3) as client, pytest.raises(Unreachable, match="ReadTimeout"):
            client.models()
