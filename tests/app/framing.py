"""Frames of a WebSocket as a client writes them."""

import random

from websockets.frames import Frame, Opcode


def masked(opcode: int, payload: bytes = b"", fin: bool = True) -> bytes:
    """Return a frame; its mask is the same in every process, for cases of tests are named by their bytes."""
    bare = Frame(Opcode(opcode), payload, fin).serialize(mask=False)
    head, mask = bytearray(bare[: len(bare) - len(payload)]), random.Random(len(payload)).randbytes(4)
    head[1] |= 0x80
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return bytes(head) + mask + (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(len(payload))
