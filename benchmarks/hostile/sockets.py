"""Send random bytes and random messages over WebSockets, each case beside a neighbour that steps on.

A case is one connection. Its bytes follow from the seed and its number.
"""

import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack

from benchmarks.hostile import frames, messages
from benchmarks.hostile.beside import Neighbour, Violation
from benchmarks.hostile.rfc6455 import Message, Verdict, judge
from benchmarks.hostile.wire import BINARY, CLOSE, PONG, TEXT, Silent, Wire, handshake, masked, read_frame, read_reply

JSON, MSGPACK = "engram.json", "engram.msgpack"

ZEROS = 64
"""Steps of zeros that the good frames of a session may be, at most."""

MESSAGES = 6
"""Messages of a case, at most."""

LEGAL = frozenset((1002, 1005, 1007, 1008, 1009))
"""Close codes of the server's own for a client's fault, beside 4400 to 4499 and the echo of the client's."""

ENDED = -1
"""In place of a close code: the connection ended without a close frame."""


@dataclass(frozen=True)
class Target:
    """A server to attack.

    model: with inputs of `width`; zeros: its outputs for ZEROS steps of zeros from the first state, [T, output_size];
    limit: bytes of a message, at most.
    """

    address: str
    model: str
    width: int
    zeros: list[Any]
    limit: int

    @classmethod
    def of(cls, address: str, model: str, neighbour: Neighbour, max_body_bytes: int) -> "Target":
        """Return a server with this setting max_body_bytes."""
        width = neighbour.ask("GET", f"/models/{model}")["input_size"]
        asked = {"model": model, "inputs": [[0.0] * width] * ZEROS}
        return cls(address, model, width, neighbour.ask("POST", "/infer", asked)["outputs"], 2 * max_body_bytes)


class Kind(NamedTuple):
    """A kind of stream, with the subprotocol that is asked for."""

    path: str
    protocol: str

    @property
    def is_many(self) -> bool:
        return self.path.startswith("/streams")


def attack(target: Target, neighbour: Neighbour, seed: int, numbers: Iterator[int], most_frames: int) -> Counter[str]:
    """Run cases until `most_frames` frames were sent; return counts. Raises Violation, which names the case."""
    counts: Counter[str] = Counter()
    for number in numbers:
        chance = random.Random(f"{seed} {number}")
        attack_by = _send_bytes if number % 3 else _send_messages
        kind = _kind(target, chance, neighbour)
        try:
            attack_by(target, kind, chance, counts)
            neighbour.step()
        except (Violation, Silent, ValueError, KeyError, TypeError) as error:
            again = f"python -m benchmarks.hostile sockets --seed {seed} --only {number}"
            raise Violation(f"{kind.path} {kind.protocol}: {type(error).__name__}: {error}\nagain: {again}") from error
        counts["connections"] += 1
        if counts["frames"] >= most_frames:
            break
    return counts


def _kind(target: Target, chance: random.Random, neighbour: Neighbour) -> Kind:
    path = chance.choice(["/stream?model={}", "/streams?model={}", "/sessions/{}/stream"])
    named = target.model if "model" in path else neighbour.ask("POST", "/sessions", {"model": target.model})["id"]
    return Kind(path.format(named), chance.choice([JSON, MSGPACK]))


def _open(target: Target, kind: Kind) -> Wire:
    """Return a WebSocket behind its greeting. Raises Violation."""
    wire = Wire(target.address)
    wire.send(handshake(target.address, kind.path, kind.protocol))
    reply = read_reply(wire, head_only=True)
    if reply is None or reply.status != 101:
        raise Violation(f"the handshake was answered by {reply}")
    greeting = _decoded(kind, read_frame(wire))
    if greeting["type"] not in ("session", "streams"):
        raise Violation(f"the greeting is {greeting}")
    return wire


def _decoded(kind: Kind, frame: tuple[int, bytes] | None) -> dict[str, Any]:
    """Return the document in a server's frame. Raises Violation."""
    opcode, payload = frame or (CLOSE, b"")
    if opcode != (TEXT if kind.protocol == JSON else BINARY):
        raise Violation(f"expected a document, got opcode {opcode} {payload[:200]!r}")
    document: dict[str, Any] = json.loads(payload) if opcode == TEXT else msgpack.unpackb(payload)
    return document


def good_document(target: Target, kind: Kind) -> dict[str, Any]:
    """Return a frame that is carried out: one step of zeros."""
    row = [[0.0] * target.width]
    return {"sessions": [0], "inputs": [row]} if kind.is_many else {"inputs": row}


# Bytes


def _send_bytes(target: Target, kind: Kind, chance: random.Random, counts: Counter[str]) -> None:
    document = good_document(target, kind)
    good = Message(TEXT, json.dumps(document).encode())
    if kind.protocol == MSGPACK:
        good = Message(BINARY, msgpack.packb(document))
    data = frames.draw(chance, good)
    verdict = judge(data, good, target.limit)
    with _open(target, kind) as wire:
        wire.send(*frames.pieces(chance, data))
        if verdict.may_stay_open:
            wire.end()
        came = _read(wire, target, kind, verdict)
    compare(verdict, came)
    counts["frames"] += verdict.frames
    counts[f"closed with {came.code}"] += 1


class Came(NamedTuple):
    """The frames that a server sent: its pongs, the number of its results, and its close code, or ENDED."""

    pongs: list[bytes]
    results: int
    code: int


def _read(wire: Wire, target: Target, kind: Kind, verdict: Verdict) -> Came:
    """Return what came up to the close frame or the end; after the last answer to good frames, close."""
    pongs: list[bytes] = []
    results = 0
    refusal: int | None = None
    closes = verdict.is_good
    while True:
        if closes and (len(pongs), results) == (len(verdict.pongs), verdict.accepted):
            wire.send(masked(frames.FIN | CLOSE, (1000).to_bytes(2)))
            closes = False
        frame = read_frame(wire)
        if frame is None:
            return Came(pongs, results, ENDED)
        opcode, payload = frame
        if opcode == CLOSE:
            code = int.from_bytes(payload[:2]) if payload else 1005
            if refusal is not None and code != refusal:
                raise Violation(f"the error frame had status {refusal - 4000}, but the close code is {code}")
            return Came(pongs, results, code)
        if opcode == PONG:
            pongs.append(payload)
            continue
        document = _decoded(kind, frame)
        if document["type"] == "error":
            refusal = close_code(document)
        else:
            results += 1
            if not verdict.others:
                _check_zeros(target, kind, document)
            elif results > verdict.accepted:
                wire.end()


def close_code(document: dict[str, Any]) -> int:
    """Return the close code that must follow an error frame. Raises Violation for an error of the server's."""
    if not 400 <= document["status"] < 500:
        raise Violation(f"an error of the server's: {document}")
    return 1009 if document["status"] == 413 else 4000 + int(document["status"])


def _check_zeros(target: Target, kind: Kind, document: dict[str, Any]) -> None:
    """Compare the answer to a good frame with the outputs of /infer. Raises Violation."""
    step: int = document["steps"][0] if kind.is_many else document["step"]
    outputs = document["outputs"][0] if kind.is_many else document["outputs"]
    numbers = memoryview(outputs["data"]).cast("f").tolist() if isinstance(outputs, dict) else outputs[0]
    expected = target.zeros[step - 1]
    if not all(
        math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9) for one, other in zip(numbers, expected, strict=True)
    ):
        raise Violation(f"step {step}: expected {expected}, got {numbers}")


def compare(verdict: Verdict, came: Came) -> None:
    """Raise Violation unless what came is what had to come."""
    if verdict.is_good:
        expected = Came(verdict.pongs, verdict.accepted, 1000)
        if came != expected:
            raise Violation(f"all frames are good: expected {expected}, got {came}")
        return
    if came.pongs != verdict.pongs[: len(came.pongs)] or came.results > verdict.accepted + verdict.others:
        raise Violation(f"{verdict}, but {came}")
    allowed = {*verdict.codes, *(() if verdict.codes and verdict.sure else (ENDED,))}
    if came.code not in allowed:
        raise Violation(f"expected one of the codes {sorted(allowed)}, got {came.code}")


# Messages


def _send_messages(target: Target, kind: Kind, chance: random.Random, counts: Counter[str]) -> None:
    """Send one message after the other, each after the answer to the last, until one is refused."""
    with _open(target, kind) as wire:
        for number in range(chance.randrange(1, MESSAGES + 1)):
            payload = _message(target, kind, chance, number)
            opcode = TEXT if (kind.protocol == JSON) is (chance.random() < 0.97) else BINARY
            wire.send(masked(frames.FIN | opcode, payload, chance.randbytes(4)))
            counts["frames"] += 1
            outcome = _answer(wire, kind)
            counts[f"answered {outcome}"] += 1
            if outcome != "results":
                return


def _message(target: Target, kind: Kind, chance: random.Random, number: int) -> bytes:
    document = good_document(target, kind)
    if chance.random() < 0.3:
        document["trace"] = ["usage"]
    if chance.random() < 0.5:
        document |= {"seqs": [number]} if kind.is_many else {"seq": number}
    if kind.is_many and chance.random() < 0.2:
        document = {"model": target.model, "count": chance.randrange(1, 3)}
    if chance.random() < 0.3:
        return json.dumps(document).encode() if kind.protocol == JSON else bytes(msgpack.packb(document))
    return (messages.json_message if kind.protocol == JSON else messages.msgpack_message)(chance, document)


def _answer(wire: Wire, kind: Kind) -> str:
    """Return the answer to one message: results, or its close code. Raises Violation."""
    frame = read_frame(wire)
    if frame is not None and frame[0] == CLOSE:
        code = int.from_bytes(frame[1][:2])
        if code not in LEGAL:
            raise Violation(f"closed with {code}, without an error frame")
        return str(code)
    document = _decoded(kind, frame)
    if document["type"] != "error":
        _check_results(document)
        return "results"
    code, last = close_code(document), read_frame(wire)
    if last is None or last[0] != CLOSE or int.from_bytes(last[1][:2]) != code:
        raise Violation(f"after {document}: expected a close frame with {code}, got {last}")
    return str(code)


def _check_results(document: dict[str, Any]) -> None:
    """Raise Violation for errors of the server's among the sessions of a frame."""
    for problem in document.get("errors", ()):
        close_code(problem)
