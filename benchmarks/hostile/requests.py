"""Raw HTTP requests that a careless server reads in two ways, each case beside a neighbour that steps on.

    hostile request, with another hidden in its body        the last request
    answers:  at most as many as a strict reader sees       404 of the last

Where parsers of HTTP differ, one client's bytes become another's request; so every case is sent with a hidden request,
whose answer must not come.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks.hostile.beside import Neighbour, Violation
from benchmarks.hostile.wire import TIMEOUT, Reply, Silent, Wire, read_reply

QUIET = 0.4
"""Seconds without an answer after which no more is awaited."""

HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /the-last-request HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"

CHUNKED = b"Transfer-Encoding: chunked"
JSON = b"Content-Type: application/json"


class Case(NamedTuple):
    """Bytes for a connection, in which HOST stands for the server's address.

    most: answers to them, at most; statuses: those of the answers, where all requests are good.
    """

    name: str
    data: bytes
    most: int
    statuses: list[int] | None = None


def post(*fields: bytes, body: bytes = b"", line: bytes = b"POST /infer HTTP/1.1", end: bytes = b"\r\n") -> bytes:
    """Return a request with these fields beside Host."""
    return end.join([line, b"Host: HOST", JSON, *fields, b"", body])


def get(target: bytes = b"/models", version: bytes = b"HTTP/1.1", *fields: bytes, method: bytes = b"GET") -> bytes:
    """Return a request without a body."""
    return b"\r\n".join([b" ".join([method, target, version]), b"Host: HOST", *fields, b"", b""])


def length(value: bytes | int) -> bytes:
    return b"Content-Length: " + (b"%d" % value if isinstance(value, int) else value)


END = b"0\r\n\r\n"
HIDING = END + HIDDEN

LENGTHS = (
    b"+5", b"-1", b"0x5", b"5 5", b"5,6", b"5, 5", b"5;", b"\xbd", b"1e1", b"", b"5.0", b"99999999999999999999",
    b"0 5",
)  # fmt: skip

CODINGS = (
    b"chunked, identity", b"identity", b"xchunked", b"chunked, chunked", b"gzip, chunked", b"chunked;q=1",
    b"\x0bchunked", b"CHUNKED ", b"chunked\t", b"\"chunked\"", b"chunked\0", b",chunked", b"chu\r\n nked",
)  # fmt: skip

CHUNKS = (
    b"5\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"-1\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
    b"ffffffffffffffffff\r\nhello\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n", b"5;" + b"x" * 20_000 + b"\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n", b"g\r\n\r\n", b"1\r\nx\r\n" * 2000 + END,
    b"5\r\nhello\r\n00000000000000000000\r\n\r\n", b"\r\n5\r\nhello\r\n0\r\n\r\n",
)  # fmt: skip

FIELDS = (
    b"X: a\r\n b", b"X: a\r\n\tb", b"X", b": x", b"X : a", b" X: a", b"X\0: a", b"X: a\0b", b"X: a\rb", b"X: a\nY: b",
    b"X(: a", b"X\x80: a", b"X: \xff\xfe", b"X: " + b"a" * 60_000, b"X" * 60_000 + b": a", b"\r\nX: a",
    b"Cookie: \x01", b"\r\n".join(b"X%d: a" % number for number in range(300)), b"Content-Length : 5",
    b"Transfer-Encoding : chunked", b"Expect: 100-continue", b"Expect: a-miracle",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA",
    b"Upgrade: websocket\r\nConnection: Upgrade", b"Connection: Upgrade\r\nUpgrade: x",
    b"Connection: close, keep-alive", b"TE: trailers", b"Trailer: Content-Length", b"Content-Encoding: gzip",
    b"Content-Encoding: gzip, gzip", b"Range: bytes=0-", b"X-HTTP-Method-Override: DELETE",
    b"X-Forwarded-Host: evil.example", b"Forwarded: host=evil.example", b"Host: HOST", b"Host: evil.example",
    b"Content-Type: text/plain", b"Origin: null", b"Accept: " + b"a/b," * 3000,
    b"Accept-Encoding: " + b"gzip;" * 3000,
)  # fmt: skip

TARGETS = (
    b"http://evil.example/sessions", b"http://HOST/models", b"https://HOST:99999/models", b"//evil.example/models",
    b"models", b"*", b"", b"/mod\0els", b"/models HTTP/1.1\r\nX: y", b"/\xff\xfe", b"/%", b"/%zz", b"/%00",
    b"/%2e%2e/models", b"/../models", b"/models#x", b"/models?" + b"x" * 60_000, b"/sessions?limit=1&limit=2",
    b"/sessions?limit=" + b"9" * 5000, b"/sessions?%00=%00&\xff", b"/sessions/" + b"%41" * 5000, b"/./models",
    b"/models/", b"/models;x=y", b"/mod%65ls", b"/static/..%2f..%2fmain.py", b"/static/%2e%2e/%2e%2e/app/main.py",
    b"/static//etc/passwd", b"/sessions/%2e%2e%2fmodels", b"HOST", b"HOST:443", b"/sessions/x/recording?from=1&to=-1",
    b"/sessions/\xf0\x9f\x98\x80", b"http://HOST", b"http://HOST?x",
)  # fmt: skip

VERSIONS = (
    b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/9.9", b"http/1.1", b"HTTP/1.1 ", b"HTTP/11", b"HTTP/1",
    b"",
)  # fmt: skip

METHODS = (
    b"get", b"G\xcbT", b"GET\t", b"X" * 5000, b"", b"TRACE", b"CONNECT", b"PROPFIND", b"PRI", b"QUERY", b"GET GET",
)  # fmt: skip

WHOLE = (
    b"GET /models\r\n", b"GET /models\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n\r\n\r\n" + get(),
    b"\n" + get(), b"GET /models HTTP/1.1\nHost: HOST\n\n", b"GET /models HTTP/1.1\rHost: HOST\r\r",
    b"GET /models HTTP/1.1\r\nHost: HOST\n\r\n", b"GET /models HTTP/1.1\r\n\r\n",
    b"GET /models HTTP/1.1\r\nHost:\r\n\r\n", b"GET /models HTTP/1.1\r\nHost: a/b\r\n\r\n",
    b"GET /models HTTP/1.1\r\nHost: a, b\r\n\r\n", b"GET /models HTTP/1.1\r\nHost: a@HOST\r\n\r\n", b"\0" * 100,
    b"\x16\x03\x01\x02\x00", b"GET /models HTTP/1.1\r\nHost: [::1\r\n\r\n", b"\xef\xbb\xbf" + get(),
    b"\x80\x01\r\n\r\n",
)  # fmt: skip


def table() -> Iterator[Case]:
    """Yield the known cases."""
    both = (length(len(HIDING)), CHUNKED)
    yield Case("a length and chunks", post(*both, body=HIDING), 1)
    yield Case("chunks and a length", post(*reversed(both), body=HIDING), 1)
    yield Case("two lengths", post(length(len(HIDDEN)), length(3), body=HIDDEN), 1)
    yield Case("two lengths, the other way", post(length(0), length(len(HIDDEN)), body=HIDDEN), 1)
    yield Case("the same length twice", post(length(len(HIDDEN)), length(len(HIDDEN)), body=HIDDEN), 1)
    yield Case("chunks of HTTP/1.0", post(CHUNKED, body=HIDING, line=b"POST /infer HTTP/1.0"), 1)
    yield Case("a body of GET", get(b"/models", b"HTTP/1.1", length(len(HIDDEN))) + HIDDEN, 1)
    for number, value in enumerate(LENGTHS):
        yield Case(f"length {number}", post(length(value), body=HIDDEN), 1)
    for number, coding in enumerate(CODINGS):
        yield Case(f"coding {number}", post(b"Transfer-Encoding: " + coding, length(len(HIDING)), body=HIDING), 1)
    for number, chunks in enumerate(CHUNKS):
        yield Case(f"chunks {number}", post(CHUNKED, body=chunks), 2)
    for number, field in enumerate(FIELDS):
        yield Case(f"field {number}", post(field, length(len(HIDDEN)), body=HIDDEN), 1)
    for number, target in enumerate(TARGETS):
        yield Case(f"target {number}", get(target), 1)
    for number, version in enumerate(VERSIONS):
        yield Case(f"version {number}", get(b"/models", version), 1)
    for number, method in enumerate(METHODS):
        yield Case(f"method {number}", get(method=method), 1)
    for number, data in enumerate(WHOLE):
        yield Case(f"whole {number}", data, 2)


CASES = tuple(table())


def draw(number: int, chance: random.Random, model: str) -> Case:
    """Return a known case, each in turn, then such with random changes of its bytes, and good requests in a row."""
    if number < len(CASES):
        return CASES[number]
    if number % 3 == 0:
        return pipeline(chance, model)
    case = chance.choice(CASES)
    data = bytearray(case.data)
    for _ in range(chance.choice([1, 1, 2, 4])):
        CHANGES[chance.randrange(len(CHANGES))](data, chance)
    return Case(f"{case.name}, changed", bytes(data), case.most + data.count(b"HTTP/") + 2)


def pipeline(chance: random.Random, model: str) -> Case:
    """Return good requests in a row, with the statuses of their answers."""
    asked = b'{"model": "%b",\r\n\r\n "inputs": [[0,0,0,0,0,0,0,0,0,0]]}' % model.encode()
    cut = chance.randrange(1, len(asked))
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (asked[:cut], asked[cut:]))
    known = [
        (get(b"/healthz"), 200),
        (get(b"/nothing", b"HTTP/1.1", b"X: y" * chance.randrange(1, 9)), 404),
        (get(b"/models/%b" % model.encode()), 200),
        (get(method=b"OPTIONS"), 204),
        (b"\r\n" + get(b"/healthz"), 200),
        (post(length(len(asked)), body=asked), 200),
        (post(length(len(asked)), b"Accept: a/b", body=asked), 200),
        (post(CHUNKED, body=chunks + END), 200),
        (post(CHUNKED, body=chunks + b"0\r\nX: trailer\r\n\r\n"), 200),
        (post(length(len(HIDDEN)), body=HIDDEN), 400),
        (post(length(0)), 400),
        (post(length(2), body=b"{}"), 422),
    ]
    chosen = [chance.choice(known) for _ in range(chance.randrange(1, 9))]
    statuses = [status for _, status in chosen]
    return Case("good requests in a row", b"".join(data for data, _ in chosen), len(chosen), statuses)


def _flip(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] = chance.choice([0, 9, 10, 13, 32, 58, 59, 127, 255, chance.randrange(256)])


def _insert(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    data[place:place] = chance.choice(
        [b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b"\r\n\r\n", CHUNKED, length(3)]
    )


def _delete(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data))
    del data[place : place + chance.choice([1, 1, 2, 10])]
    data += b"" if data else b"x"


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (_flip, _insert, _delete)


def attack(
    address: str, model: str, neighbour: Neighbour, seed: int, numbers: Iterator[int], most: int
) -> Counter[str]:
    """Run `most` cases and return counts. Raises Violation, which names the case."""
    counts: Counter[str] = Counter()
    for number in numbers:
        chance = random.Random(f"{seed} {number}")
        case = draw(number, chance, model)
        try:
            replies = ask(address, case, chance)
            check(case, replies)
            neighbour.step()
        except (Violation, Silent, ValueError, KeyError) as error:
            again = f"python -m benchmarks.hostile requests --seed {seed} --only {number}"
            raise Violation(
                f"{case.name}: {type(error).__name__}: {error}\n{case.data[:600]!r}\nagain: {again}"
            ) from error
        counts.update(f"answered {reply.status}" for reply in replies)
        counts["no answer"] += not replies
        counts["requests"] += 1
        if counts["requests"] >= most:
            break
    return counts


def ask(address: str, case: Case, chance: random.Random) -> list[Reply]:
    """Return the answers to a case, without that to the last request, which need not come."""
    host = address.encode()
    with Wire(address, QUIET if case.statuses is None else TIMEOUT) as wire:
        data = (case.data + LAST).replace(b"HOST", host)
        cut = chance.randrange(len(data))
        wire.send(data[:cut], data[cut:])
        replies = []
        try:
            while (reply := read_reply(wire)) is not None and b"/the-last-request" not in reply.body:
                replies.append(reply)
        except Silent:
            pass
    return replies


def check(case: Case, replies: list[Reply]) -> None:
    """Raise Violation for an error of the server's, or more answers than requests."""
    statuses = [reply.status for reply in replies if reply.status >= 200]
    if any(status >= 500 for status in statuses):
        raise Violation(f"answered {statuses}")
    answered = statuses[:-1] if statuses[-1:] == [400] else statuses  # the rest is garbage, where one was refused
    if case.statuses is not None and statuses != case.statuses:
        raise Violation(f"expected {case.statuses}, got {statuses}")
    if len(answered) > case.most:
        raise Violation(f"expected at most {case.most} answers, got {statuses}")
