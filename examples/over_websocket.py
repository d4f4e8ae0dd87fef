"""Stream a sequence over WebSocket, lose the connection in the middle, and go on from the session's state.

scripts/serve                                   # in another terminal
python examples/over_websocket.py [ws://127.0.0.1:8000]
"""

import json
import random
import sys
from typing import Any

from websockets.sync.client import ClientConnection, connect

LENGTH, BITS = 6, 8


def receive(socket: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(socket.recv()))


def main(url: str) -> None:
    vectors = [[random.randint(0, 1) for _ in range(BITS)] for _ in range(LENGTH)]
    start, end = [[0] * BITS + [1, 0]], [[0] * BITS + [0, 1]]
    inputs = start + [[*vector, 0, 0] for vector in vectors] + end + [[0] * (BITS + 2)] * LENGTH

    with connect(f"{url}/stream?model=ntm-copy") as socket:
        session = receive(socket)["session"]
        print("session", session)
        for seq in range(LENGTH):
            socket.send(json.dumps({"seq": seq, "inputs": [inputs[seq]]}))
            receive(socket)
        socket.send(json.dumps({"seq": LENGTH, "inputs": [inputs[LENGTH]]}))
        # ... and the connection drops before the answer: was the frame carried out?

    said = []
    with connect(f"{url}/sessions/{session}/stream") as socket:
        greeting = receive(socket)
        print("reconnected; the last frame carried out is", greeting["seq"], "at step", greeting["step"])
        for seq in range(greeting["seq"] + 1, len(inputs)):
            frame = {"seq": seq, "inputs": [inputs[seq]], "trace": ["read_weights"]}
            socket.send(json.dumps(frame))
            answer = receive(socket)
            weights = answer["trace"]["read_weights"][0][0]
            print(f"step {answer['step']:2d}  reads location {weights.index(max(weights)):3d} ({max(weights):.2f})")
            said.append([round(value) for value in answer["outputs"][0]])
    print("copied:", said[-LENGTH:] == vectors)


if __name__ == "__main__":
    main(*sys.argv[1:] or ["ws://127.0.0.1:8000"])
