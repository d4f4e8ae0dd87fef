"""WebSocket frames of a client."""

import random

from websockets.frames import Frame, Opcode


def masked(opcode: int, payload: bytes = b"", fin: bool = True) -> bytes:
    """Return a masked frame; its mask depends on its length only, so that ids of test cases never change."""
    bare = Frame(Opcode(opcode), payload, fin).serialize(mask=False)
    head, mask = bytearray(bare[: len(bare) - len(payload)]), random.Random(len(payload)).randbytes(4)
    head[1] |= 0x80
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return bytes(head) + mask + (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(len(payload))
