"""Bodies that come compressed, to a real server: JSON and snapshots, whole, damaged, and far larger than they look."""

import asyncio
import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.encodings import PIECE_BYTES, decompress
from tests.app.api.test_http import open_session, problem
from tests.app.copying import sequence

BODY = json.dumps({"model": "dnc-copy", "inputs": sequence(3)[0]}).encode()
LIMIT = 200_000
"""The server's max_body_bytes."""

CODINGS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "GZIP": gzip.compress, "deflate": zlib.compress}


def infer(client, content, coding):
    return client.post("/infer", content=content, headers={"Content-Encoding": coding})


@pytest.mark.parametrize("coding", CODINGS)
def test_compressed_body_is_answered_like_the_plain_one(client, coding):
    assert infer(client, CODINGS[coding](BODY), coding).json() == client.post("/infer", content=BODY).json()


@pytest.mark.parametrize("coding", ["identity", "", "identity , Identity"])
def test_body_under_no_coding_is_taken_as_it_is(client, coding):
    assert infer(client, BODY, coding).status_code == 200


def test_gzip_of_several_members_in_small_chunks_is_taken(client):
    members = b"".join(gzip.compress(BODY[start : start + 50]) for start in range(0, len(BODY), 50))
    chunks = (members[start : start + 7] for start in range(0, len(members), 7))
    assert infer(client, chunks, "gzip").json() == client.post("/infer", content=BODY).json()


def test_body_of_the_limit_is_accepted_but_no_byte_more(client):
    full = BODY + b" " * (LIMIT - len(BODY))
    assert infer(client, gzip.compress(full), "gzip").status_code == 200
    problem(infer(client, gzip.compress(full + b" "), "gzip"), 413, "body_too_large")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bomb_stops_at_the_limit(client, coding):
    bomb = CODINGS[coding](bytes(150 * 2**20))
    assert len(bomb) < LIMIT
    reply = problem(infer(client, bomb, coding), 413, "body_too_large")
    assert int(str(reply["got"]).split()[0]) <= LIMIT + 2**18
    assert reply["expected"] == f"at most {LIMIT} bytes"


def test_compressed_bytes_that_hold_nothing_are_bounded_too(client):
    nothing = gzip.compress(b"")
    assert infer(client, nothing * 4_000 + gzip.compress(BODY), "gzip").status_code == 200
    problem(infer(client, nothing * 4_096 + gzip.compress(BODY), "gzip"), 400, "malformed_body")


@given(
    st.integers(-300, 300), st.integers(0, 3), st.sampled_from([1, 5, 1000, 2**20]), st.sampled_from([*CODINGS][::3])
)
def test_pieces_are_the_whole_body_however_it_came(beyond, pieces, chunk, coding):
    body = bytes(max(0, pieces * PIECE_BYTES + beyond))
    packed = CODINGS[coding](body)

    async def arrive():
        for start in range(0, len(packed), chunk):
            yield packed[start : start + chunk]

    async def collect():
        return [piece async for piece in decompress(arrive(), coding)]

    found = asyncio.run(collect())
    assert b"".join(found) == body
    assert all(len(piece) <= PIECE_BYTES for piece in found)


DAMAGED = {
    "plain": (BODY, "gzip"),
    "of the other coding": (gzip.compress(BODY), "deflate"),
    "without the zlib header": (zlib.compress(BODY)[2:-4], "deflate"),
    "cut off": (gzip.compress(BODY)[:-9], "gzip"),
    "without its checksum": (gzip.compress(BODY)[:-8], "gzip"),
    "of another checksum": (gzip.compress(BODY)[:-8] + bytes(8), "gzip"),
    "followed by garbage": (gzip.compress(BODY) + b"garbage that is longer than a header", "gzip"),
    "followed by a line feed": (gzip.compress(BODY) + b"\n", "gzip"),
    "compressed twice, declared once": (gzip.compress(gzip.compress(BODY)), "gzip"),
    "nothing": (b"", "gzip"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_body_that_is_not_what_its_coding_says_is_refused(client, damage):
    problem(infer(client, *DAMAGED[damage]), 400, "malformed_body")


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "deflate,gzip", "compress", "gzip;q=1"])
def test_unsupported_coding_is_refused_with_the_supported_ones(client, coding):
    refused = infer(client, gzip.compress(BODY), coding)
    reply = problem(refused, 415, "unsupported_encoding")
    assert (reply["got"], reply["expected"]) == (repr(coding), "gzip, deflate or none")
    assert refused.headers["accept-encoding"] == "gzip, deflate"


def test_every_route_with_a_body_takes_it_compressed(client):
    session, headers = open_session(client), {"Content-Encoding": "gzip"}
    bodies = {"steps": {"inputs": sequence(3)[0]}, "rewind": {"step": 2}, "fork": {"step": 1}}
    for route, body in bodies.items():
        packed = gzip.compress(json.dumps(body).encode())
        answer = client.post(f"/sessions/{session}/{route}", content=packed, headers=headers)
        assert answer.status_code in (200, 201), answer.text
    assert client.get(f"/sessions/{session}").json()["step"] == 2
    opened = client.post("/sessions", content=gzip.compress(b'{"model": "dnc-copy"}'), headers=headers)
    assert opened.json()["step"] == 0


def test_snapshot_is_taken_compressed(client):
    session = open_session(client)
    client.post(f"/sessions/{session}/steps", json={"inputs": sequence(3)[0]})
    snapshot = gzip.compress(client.get(f"/sessions/{session}/snapshot").content)
    headers = {"Content-Type": "application/x-safetensors", "Content-Encoding": "gzip"}
    assert client.post("/sessions", content=snapshot, headers=headers).json()["step"] == 8
    problem(client.post("/sessions", content=snapshot[:-20], headers=headers), 400, "malformed_body")
