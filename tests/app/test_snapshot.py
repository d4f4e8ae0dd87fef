"""A session in a file: what goes in comes out, and nothing else is taken for one."""

import json

import numpy as np
import pytest
from safetensors.numpy import save

from app.errors import InvalidSnapshot
from app.snapshot import Snapshot

STATE = {"memory": np.arange(6, dtype=np.float32).reshape(2, 3), "controller.h": np.array([-0.0, 1e-42], np.float32)}
SNAPSHOT = Snapshot("dnc-copy", "f" * 64, 32, 17, STATE)


def test_snapshot_comes_back_as_it_was():
    came = Snapshot.from_bytes(SNAPSHOT.to_bytes())
    assert (came.model, came.fingerprint, came.memory_size, came.step) == ("dnc-copy", "f" * 64, 32, 17)
    assert {name: leaf.tobytes() for name, leaf in came.state.items()} == {
        name: leaf.tobytes() for name, leaf in STATE.items()
    }
    assert Snapshot.from_bytes(Snapshot("lstm", "0", None, 0, {}).to_bytes()).memory_size is None


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
        (retold(snapshot="2"), "of format 2, but this server reads format 1"),
        (retold(step="18"), "damaged, or was changed"),
        (retold(model="ntm-copy"), "damaged, or was changed"),
    ],
)
def test_what_is_no_snapshot_is_refused_with_its_reason(data, reason):
    with pytest.raises(InvalidSnapshot, match=reason):
        Snapshot.from_bytes(data)


@pytest.mark.parametrize(
    ("memory_size", "step"), [(32, -1), (32, 2**53 + 1), (32, 10**30), (32.0, 3), ("32", 3), ([32], 3), (True, 3)]
)
def test_snapshot_of_a_step_or_memory_size_that_cannot_be_is_refused(memory_size, step):
    forged = Snapshot("dnc-copy", "f" * 64, memory_size, step, STATE).to_bytes()
    with pytest.raises(InvalidSnapshot, match="its metadata cannot be used"):
        Snapshot.from_bytes(forged)
    assert Snapshot.from_bytes(Snapshot("dnc-copy", "f" * 64, 32, 2**53, STATE).to_bytes()).step == 2**53


def test_state_of_other_leaves_shapes_or_types_is_refused():
    SNAPSHOT.check_shapes({"memory": [2, 3], "controller.h": [2]})
    for expected in ({"memory": [2, 3]}, {"memory": [3, 2], "controller.h": [2]}):
        with pytest.raises(InvalidSnapshot, match="its state is"):
            SNAPSHOT.check_shapes(expected)
    doubles = Snapshot("a", "f", None, 0, {"h": np.zeros(2)})
    with pytest.raises(InvalidSnapshot):
        doubles.check_shapes({"h": [2]})
