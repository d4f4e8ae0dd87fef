"""Hostile clients of a real server, in short form; `python -m benchmarks.hostile` is the long one."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.hostile import requests, sockets
from benchmarks.hostile.beside import Neighbour, Violation, Vitals, check_log, check_rest, warm_up
from benchmarks.hostile.requests import Case
from benchmarks.hostile.rfc6455 import CONTINUATION, REFUSED, Message, Verdict, judge
from benchmarks.hostile.sockets import ENDED, Came
from benchmarks.hostile.wire import BINARY, CLOSE, PING, TEXT, Reply, masked
from tests.app.harness import Server, running_server

pytestmark = pytest.mark.slow

FRAMES = 10_000
REQUESTS = 600
MODEL = "dnc-copy"
MAX_BODY_BYTES = 150_000

FIN = 0x80
GOOD = Message(TEXT, b"good")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, few: Path) -> Iterator[Server]:
    limits = ["--max-body-bytes", str(MAX_BODY_BYTES)]
    with running_server(*limits, data=tmp_path_factory.mktemp("hostile") / "data", checkpoints=few) as server:
        warm_up(address(server), MODEL)
        yield server


@pytest.fixture
def neighbour(attacked: Server) -> Iterator[Neighbour]:
    with Neighbour(address(attacked), MODEL) as neighbour:
        yield neighbour


def address(server: Server) -> str:
    return server.url.removeprefix("http://")


def test_random_frames_close_their_own_socket_only(attacked, neighbour):
    before = Vitals.of(attacked.process.pid)
    target = sockets.Target.of(address(attacked), MODEL, neighbour, MAX_BODY_BYTES)
    counts = sockets.attack(target, neighbour, 1, itertools.count(), FRAMES)
    check_rest(neighbour, attacked.process.pid, attacked.log, before)
    assert counts["frames"] >= FRAMES
    assert counts["answered results"] > 100
    assert {f"closed with {code}" for code in (1000, 1002, 1007, 1009, 4400)} <= counts.keys()


def test_random_requests_have_one_answer_each(attacked, neighbour):
    before = Vitals.of(attacked.process.pid)
    counts = requests.attack(address(attacked), MODEL, neighbour, 1, itertools.count(), REQUESTS)
    check_rest(neighbour, attacked.process.pid, attacked.log, before)
    assert counts["requests"] == REQUESTS > 2 * len(requests.CASES)
    assert counts["answered 400"] > 100
    assert counts["answered 200"] > 10


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"anything"])
def test_body_behind_an_upgrade_is_no_request(attacked, protocol):
    upgrade = b"Connection: Upgrade\r\nUpgrade: " + protocol
    body = requests.HIDDEN
    case = Case("upgrade", requests.post(upgrade, requests.length(len(body)), body=body), 1)
    replies = requests.ask(address(attacked), case, random.Random(1))
    assert [reply.status for reply in replies] == [400]


@pytest.mark.parametrize("statuses", [[400, 200], [200, 404], [500], [503], [400, 400, 400]])
def test_answer_to_a_hidden_request_is_a_violation(statuses):
    requests.check(Case("one", b"", 1), [Reply(422, {}, b""), Reply(400, {}, b"")])
    with pytest.raises(Violation):
        requests.check(Case("one", b"", 1), [Reply(status, {}, b"") for status in statuses])


def text(payload: bytes, fin: int = FIN) -> bytes:
    return masked(fin | TEXT, payload)


def rest(payload: bytes, fin: int = FIN) -> bytes:
    return masked(fin | CONTINUATION, payload)


BYTES = {
    "nothing": (b"", Verdict()),
    "a good message": (text(b"good"), Verdict(accepted=1, frames=1)),
    "fragments with a ping between": (
        text(b"go", 0) + masked(FIN | PING, b"p") + rest(b"od"),
        Verdict(accepted=1, pongs=[b"p"], frames=3),
    ),
    "a character in two fragments": (text(b"\xc3", 0) + rest(b"\xbc"), Verdict({*REFUSED}, False, others=1, frames=2)),
    "half a character": (text(b"\xc3"), Verdict({1007}, frames=1)),
    "no mask": (masked(FIN | TEXT, b"good", bare=True), Verdict({1002}, frames=1)),
    "a reserved bit": (masked(0xC0 | TEXT, b"good"), Verdict({1002}, frames=1)),
    "an unknown opcode": (masked(FIN | 3, b""), Verdict({1002}, frames=1)),
    "a fragment of nothing": (rest(b"good"), Verdict({1002}, frames=1)),
    "a message within a message": (text(b"go", 0) + text(b"good"), Verdict({1002}, frames=2)),
    "a ping in fragments": (masked(PING, b""), Verdict({1002}, frames=1)),
    "a long ping": (masked(FIN | PING, bytes(126)), Verdict({1002}, frames=1)),
    "too large a message": (masked(FIN | BINARY, b"", length=b"\x7e\xff\xff"), Verdict({1009}, frames=1)),
    "too large in fragments": (text(bytes(600), 0) + rest(bytes(600)), Verdict({1009}, frames=2)),
    "a length beyond 63 bits": (masked(FIN | TEXT, b"", length=b"\x7f" + b"\xff" * 8), Verdict({1002, 1009}, frames=1)),
    "a close": (masked(FIN | CLOSE, b"\x03\xe8"), Verdict({1000}, frames=1)),
    "a close without a code": (masked(FIN | CLOSE, b""), Verdict({1005}, frames=1)),
    "a close with half a code": (masked(FIN | CLOSE, b"\x03"), Verdict({1002}, frames=1)),
    "a close with a code of none": (masked(FIN | CLOSE, b"\x03\xed"), Verdict({1002}, frames=1)),
    "half a frame": (text(b"good")[:7], Verdict(whole=False, frames=1)),
    "what comes after a close": (masked(FIN | CLOSE, b"") + masked(FIN | 3, b""), Verdict({1005}, frames=1)),
}
"""Bytes of a client, and the verdict that RFC 6455 passes, where messages have 1,000 bytes at most."""


@pytest.mark.parametrize("case", BYTES)
def test_model_judges_frames_as_the_rfc_does(case):
    data, verdict = BYTES[case]
    assert judge(data, GOOD, 1000) == verdict


@pytest.mark.parametrize(
    ("verdict", "came"),
    [
        (Verdict({1002}), Came([], 0, 1000)),
        (Verdict({1002}), Came([], 0, ENDED)),
        (Verdict({1002}), Came([], 1, 1002)),
        (Verdict({1002}, pongs=[b"a", b"b"]), Came([b"b"], 0, 1002)),
        (Verdict(accepted=2), Came([], 1, 1000)),
        (Verdict(whole=False), Came([], 0, 1011)),
    ],
)
def test_other_outcome_than_the_verdict_is_a_violation(verdict, came):
    with pytest.raises(Violation):
        sockets.compare(verdict, came)


@pytest.mark.parametrize("status", [500, 503])
def test_error_of_the_server_is_a_violation(status):
    assert sockets.close_code({"status": 422}) == 4422
    with pytest.raises(Violation):
        sockets.close_code({"status": status})


def test_wrong_step_of_the_neighbour_is_a_violation(neighbour):
    neighbour.step()
    neighbour.inputs[1] = [1 - value for value in neighbour.inputs[1]]
    with pytest.raises(Violation, match="step 1 over HTTP"):
        neighbour.step()


def test_traceback_in_the_log_is_a_violation():
    check_log("2026-01-01 INFO app.server: serving\n")
    for line in ("Traceback (most recent call last):", "2026-01-01 12:00:00,000 ERROR uvicorn.error: x"):
        with pytest.raises(Violation):
            check_log(f"2026-01-01 INFO app.server: serving\n{line}\n")
