"""A session in a file: what goes in comes out, and nothing else is taken for one."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

from app.backends.base import Spec
from app.errors import InvalidSnapshot
from app.sessions import snapshot
from app.sessions.snapshot import LARGE, MAX_HEADER_BYTES, Snapshot, _digest
from app.settings import Settings

STATE = {"memory": np.arange(6, dtype=np.float32).reshape(2, 3), "controller.h": np.array([-0.0, 1e-42], np.float32)}
SNAPSHOT = Snapshot("dnc-copy", "f" * 64, 32, 17, STATE)


def test_snapshot_comes_back_as_it_was():
    came = Snapshot.from_bytes(SNAPSHOT.to_bytes())
    assert (came.model, came.fingerprint, came.memory_size, came.step) == ("dnc-copy", "f" * 64, 32, 17)
    assert {name: leaf.tobytes() for name, leaf in came.state.items()} == {
        name: leaf.tobytes() for name, leaf in STATE.items()
    }
    assert Snapshot.from_bytes(Snapshot("lstm", "0", None, 0, {}).to_bytes()).memory_size is None


def test_snapshot_of_a_forced_session_has_its_own_format():
    forced = replace(SNAPSHOT, force='{"write_gate":[0.0]}')
    data = forced.to_bytes()
    assert (Snapshot.from_bytes(data).force, b'"engram.snapshot":"2"' in data) == (forced.force, True)
    assert (Snapshot.from_bytes(SNAPSHOT.to_bytes()).force, b'"engram.snapshot":"1"' in SNAPSHOT.to_bytes()) == (
        None,
        True,
    )
    with pytest.raises(InvalidSnapshot, match=r"its metadata has no engram\.force"):
        Snapshot.from_bytes(forged(snapshot="2"))


def test_snapshot_with_any_bit_changed_is_refused():
    data = SNAPSHOT.to_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        with pytest.raises(InvalidSnapshot):
            Snapshot.from_bytes(bytes(changed))


def test_snapshot_cut_off_anywhere_is_refused():
    data = SNAPSHOT.to_bytes()
    for size in range(len(data)):
        with pytest.raises(InvalidSnapshot):
            Snapshot.from_bytes(data[:size])


def retold(**changes: str) -> bytes:
    """Return the snapshot with other words in its metadata."""
    data = SNAPSHOT.to_bytes()
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    return save(STATE, metadata | {f"engram.{name}": value for name, value in changes.items()})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no safetensors file"),
        (b"{}" * 100, "no safetensors file"),
        (save(STATE), "of format None"),
        (retold(snapshot="3"), "of format 3, but this server reads formats 1 and 2"),
        (retold(snapshot="2"), "damaged, or was changed"),
        (retold(step="18"), "damaged, or was changed"),
        (retold(model="ntm-copy"), "damaged, or was changed"),
    ],
)
def test_what_is_no_snapshot_is_refused_with_its_reason(data, reason):
    with pytest.raises(InvalidSnapshot, match=reason):
        Snapshot.from_bytes(data)


def test_large_header_is_refused_before_anything_reads_it(monkeypatch):
    monkeypatch.setattr(snapshot, "load", lambda data: pytest.fail(f"{len(data)} bytes are read"))
    data = save({}, {f"key {number}": "" for number in range(MAX_HEADER_BYTES // 10)})
    assert int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES
    with pytest.raises(InvalidSnapshot, match=r"its header would be of \d+ bytes"):
        Snapshot.from_bytes(data)


def forged(**changes: str) -> bytes:
    """Return the snapshot with other words in its metadata, and the digest that they have."""
    metadata = {"snapshot": "1", "model": "m", "fingerprint": "f", "memory_size": "32", "step": "3"} | changes
    metadata = {f"engram.{name}": value for name, value in metadata.items()}
    return save(STATE, metadata | {"engram.digest": _digest(metadata, STATE)})


NO_NUMBERS = ["-1", "+3", " 3", "3 ", "1_0", "3.0", "1e3", "٣", "³", "", "true", "[32]", "9" * 30, str(2**53 + 1)]


@pytest.mark.parametrize("text", [*NO_NUMBERS, "null", "[" * 5000 + "]" * 5000])
def test_snapshot_of_a_step_that_cannot_be_is_refused(text):
    with pytest.raises(InvalidSnapshot, match="step must be a whole number from 0"):
        Snapshot.from_bytes(forged(step=text))
    assert Snapshot.from_bytes(forged(step=str(2**53))).step == 2**53


@pytest.mark.parametrize("text", [*NO_NUMBERS, "0", '"32"', "Null", "[" * 5000 + "]" * 5000])
def test_snapshot_of_a_memory_size_that_cannot_be_is_refused(text):
    with pytest.raises(InvalidSnapshot, match="memory_size must be a whole number from 1"):
        Snapshot.from_bytes(forged(memory_size=text))
    assert Snapshot.from_bytes(forged(memory_size="32")).memory_size == 32


@pytest.mark.parametrize("metadata", ["null", "{}", None])
def test_file_without_metadata_is_refused(metadata):
    header = '{"h":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}' + (
        f',"__metadata__":{metadata}' if metadata else ""
    )
    header = (header + "}").ljust(128)
    with pytest.raises(InvalidSnapshot):
        Snapshot.from_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))


def spec(memory_size: int | None = 32, **axes: list[int | None]) -> Spec:
    return Spec(1, 1, memory_size, axes or {"memory": [2, 3], "controller.h": [2]}, {})


def test_snapshots_read_on_the_event_loop_are_small_together():
    """It goes through a megabyte of them in a millisecond, about."""
    assert LARGE * Settings().max_sequences <= 32 * 2**20


def test_state_of_other_leaves_shapes_or_types_is_refused():
    leaves = {"memory": [2, 3], "controller.h": [2]}
    SNAPSHOT.check(spec(32, **leaves))
    for axes in ({"memory": [2, 3]}, {"memory": [3, 2], "controller.h": [2]}):
        with pytest.raises(InvalidSnapshot, match="its state is"):
            SNAPSHOT.check(spec(32, **axes))
    with pytest.raises(InvalidSnapshot, match="its state is"):
        Snapshot("a", "f", None, 0, {"h": np.zeros(2)}).check(spec(None, h=[2]))


@pytest.mark.parametrize(("came", "expected"), [(None, 32), (32, None), (32, 31)])
def test_state_of_another_memory_size_is_refused(came, expected):
    snapshot = Snapshot("m", "f", came, 3, STATE)
    with pytest.raises(InvalidSnapshot, match=f"has {expected or 'no'} memory locations"):
        snapshot.check(spec(expected))
    snapshot.check(spec(came))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_state_that_is_not_finite_is_refused_with_its_place(value):
    state = {name: leaf.copy() for name, leaf in STATE.items()}
    state["memory"][1, 2] = value
    with pytest.raises(InvalidSnapshot, match=r"-?(nan|inf) at memory\[1\]\[2\]"):
        Snapshot("m", "f", 32, 3, state).check(spec())


def test_bool_other_than_0_and_1_is_refused():
    flags = Spec(1, 1, None, {"flag": [2]}, {}, {"flag": "bool"})
    good, bad = (np.frombuffer(bytes([1, byte]), bool) for byte in (0, 2))
    Snapshot("m", "f", None, 3, {"flag": good}).check(flags)
    with pytest.raises(InvalidSnapshot, match="a byte that is neither 0 nor 1 at flag, which is of bool"):
        Snapshot("m", "f", None, 3, {"flag": bad}).check(flags)
