import pytest

from app.access.hosts import REMEMBERED, Hosts
from app.errors import HostRefused, InvalidHost, OriginRefused

HOSTS = Hosts("10.0.0.7", ["Engram.example", "*.below.example"], ["https://page.example", "http://localhost:3000"])

ACCEPTED = [
    "127.0.0.1", "127.0.0.1:8000", "127.9.9.9:1", "localhost", "LOCALHOST:80", "[::1]", "[::1]:8000", "10.0.0.7:8000",
    "engram.example", "ENGRAM.example:443", "a.below.example", "a.b.below.example:1", "192.168.1.5:8000",
]  # fmt: skip

REFUSED = [
    "", "evil.example", "below.example", "evilbelow.example", "10.0.0.8", "localhost.evil.example", "localhost.", "::1",
    "127.0.0.1.evil.example", "localhost:", "localhost:port", "localhost:1:2", "localhost evil", "a@localhost", "127.1",
    "[localhost", "[fe80::1]", "0.0.0.0", "engram.example/", "\xff", "localhost\x00", "8.8.8.8", "2130706433",
]  # fmt: skip


@pytest.mark.parametrize("host", ACCEPTED)
def test_names_of_the_server_are_accepted(host):
    HOSTS.check([host.encode()], "192.168.1.5")


@pytest.mark.parametrize("host", REFUSED)
def test_other_names_are_refused_with_the_remedy(host):
    with pytest.raises(HostRefused, match="--hosts") as refused:
        HOSTS.check([host.encode("latin-1")], "192.168.1.5")
    assert refused.value.more["got"] == host


@pytest.mark.parametrize("hosts", [[], [b"localhost", b"localhost"], [b"localhost", b"evil.example"]])
def test_request_without_one_host_is_refused(hosts):
    with pytest.raises(InvalidHost):
        HOSTS.check(hosts, None)


def test_remembered_names_are_bounded():
    hosts = Hosts("127.0.0.1")
    assert all(hosts.accepts(b"localhost:%d" % port) for port in range(2 * REMEMBERED))
    assert len(hosts._accepted) == REMEMBERED


OWN = [
    ("http://localhost:8000", "localhost:8000"),
    ("http://localhost", "localhost:80"),
    ("http://localhost:80", "localhost"),
    ("https://engram.example", "engram.example"),
    ("https://Engram.example", "engram.EXAMPLE:443"),
    ("http://[::1]:8000", "[::1]:8000"),
]

FOREIGN = [
    ("http://localhost:3001", "localhost:8000"),
    ("https://localhost:8000", "localhost:8001"),
    ("http://127.0.0.1:8000", "localhost:8000"),
    ("null", "localhost"),
    ("", "localhost"),
    ("localhost", "localhost"),
    ("file://localhost", "localhost"),
    ("http://evil.example", "localhost"),
    ("http://localhost.evil.example", "localhost"),
    ("http://localhost/", "localhost"),
    ("http://page.example", "localhost"),
    ("https://page.example:444", "localhost"),
    ("https://page.example.evil", "localhost"),
]


@pytest.mark.parametrize(("origin", "host"), [*OWN, ("https://page.example", "x"), ("http://localhost:3000", "x")])
def test_own_and_configured_origins_are_accepted(origin, host):
    HOSTS.check_origin([origin.encode()], host.encode())


def test_request_of_no_page_is_accepted():
    HOSTS.check_origin([], b"localhost")


@pytest.mark.parametrize(("origin", "host"), FOREIGN)
def test_foreign_origins_are_refused_with_the_remedy(origin, host):
    with pytest.raises(OriginRefused, match="--origins"):
        HOSTS.check_origin([origin.encode()], host.encode())


def test_two_origins_are_refused():
    with pytest.raises(OriginRefused):
        HOSTS.check_origin([b"http://localhost", b"http://localhost"], b"localhost")
