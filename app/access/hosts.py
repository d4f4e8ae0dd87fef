"""The Host and the Origin that requests may have, so that no web page of another origin can use the server.

A page in a user's browser can send requests to servers that only the user can reach. A browser puts the origin of the
page into those that can change something, and into those that open a WebSocket. A page whose name was made to resolve
to the server's address (DNS rebinding) sends the page's name as Host.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence

from app.errors import HostRefused, InvalidHost, OriginRefused

AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")
"""A host, in lower case, and a port."""

DEFAULT_PORTS = {"http": ":80", "https": ":443"}

REMEMBERED = 1024
"""Values of Host that are remembered as accepted, at most."""

LONGEST_SHOWN = 200
"""Characters of a Host or an Origin that are shown in an error."""


class Hosts:
    """The names by which clients may address the server, and the origins whose pages may use it.

    Loopback addresses, `localhost`, the address to which the server is bound and that of the connection are always
    accepted, and pages of the server's own origin. Ports of Host do not count: a proxy may listen on another one.
    """

    def __init__(self, bound: str, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        """bound: the address to listen on. hosts: further names; `*.example.org` is every name below example.org.

        origins: of pages that may use the server, such as https://example.org.
        """
        names = {bound.lower(), "localhost", *(host.lower() for host in hosts)}
        self._names = {name for name in names if not name.startswith("*.")}
        self._ends = tuple(name[1:] for name in names if name.startswith("*."))
        self._origins = frozenset(origin.lower() for origin in origins)
        self._accepted: set[bytes] = set()

    def accepts(self, value: bytes, local: str | None = None) -> bool:
        """Return whether a value of Host names this server; local: the address of the connection on this side."""
        if value in self._accepted:
            return True
        is_accepted = self._is_ours(value, local)
        if is_accepted and len(self._accepted) < REMEMBERED:
            self._accepted.add(value)
        return is_accepted

    def check(self, values: Sequence[bytes], local: str | None) -> None:
        """Check the values of Host in a request; local as for `accepts`.

        Raises InvalidHost unless there is one, HostRefused if it is not a name of this server.
        """
        if len(values) != 1:
            raise InvalidHost(
                f"the request has {len(values) or 'no'} Host header fields; expected one, as HTTP/1.1 has it",
                place="Host",
                expected="one Host header field",
                got=str(len(values)),
            )
        [value] = values
        if not self.accepts(value, local):
            shown = value.decode("latin-1")[:LONGEST_SHOWN]
            raise HostRefused(
                f"Host {shown!r} is no name of this server; if it should be, start the server with --hosts {shown}",
                place="Host",
                expected="a loopback address, the address that the server listens on, or a name of the setting hosts",
                got=shown,
            )

    def check_origin(self, values: Sequence[bytes], host: bytes) -> None:
        """Check the values of Origin in a request with this Host. Raises OriginRefused."""
        if not values:
            return
        origin = values[0].decode("latin-1").lower()
        if len(values) == 1 and (origin in self._origins or _is_of(origin, host.decode("latin-1").lower())):
            return
        shown = b", ".join(values).decode("latin-1")[:LONGEST_SHOWN]
        raise OriginRefused(
            f"the request comes from a page of {shown!r}, which may not use this server; if it should, start the "
            f"server with --origins {shown}; a proxy in between must pass the header Host on",
            place="Origin",
            expected="no Origin, the server's own, or one of the setting origins",
            got=shown,
        )

    def _is_ours(self, value: bytes, local: str | None) -> bool:
        found = AUTHORITY.fullmatch(value.decode("latin-1").lower())
        if not found:
            return False
        name = found[1].strip("[]")
        return name in self._names or name.endswith(self._ends) or name == local or _is_loopback(name)


def _is_of(origin: str, host: str) -> bool:
    """Return whether an origin is that of the server which a request addresses as `host`."""
    scheme, separator, authority = origin.partition("://")
    port = DEFAULT_PORTS.get(scheme)
    return bool(separator) and port is not None and authority.removesuffix(port) == host.removesuffix(port)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_local(host: str) -> bool:
    """Return whether only this machine reaches a server that listens on an address."""
    return host == "localhost" or _is_loopback(host)
