"""Stream a sequence with the Python client, continue a fork with another input, and move the session by a snapshot.

pip install -c constraints.txt ./client
scripts/serve                                   # in another terminal
python examples/client.py [http://127.0.0.1:8000]
"""

import random
import sys

import numpy as np

from engram_client import Client

LENGTH, BITS = 6, 8


def heard(vectors: np.ndarray) -> np.ndarray:
    """Return the inputs of a copy sequence until its silence, [LENGTH + 2, BITS + 2]: start flag, vectors, end flag."""
    inputs = np.zeros((LENGTH + 2, BITS + 2))
    inputs[0, BITS], inputs[-1, BITS + 1] = 1, 1
    inputs[1:-1, :BITS] = vectors
    return inputs


SILENCE = np.zeros((LENGTH, BITS + 2))


def main(url: str) -> None:
    vectors = np.array([[random.randint(0, 1) for _ in range(BITS)] for _ in range(LENGTH)])
    with Client(url) as client:
        session = client.open("dnc-copy")
        with session.stream() as stream:
            steps = list(stream.map(heard(vectors)[:, np.newaxis], trace=["write_weights"]))
            said = stream.run(SILENCE).outputs
        print("copied:", np.array_equal(said.round(), vectors))
        print("slots written:", [int(step.trace["write_weights"].argmax()) for step in steps[1:-1]])

        # A fork at an earlier step takes another last vector
        fork = session.fork(step=LENGTH)
        other = np.vstack([vectors[:-1], 1 - vectors[-1:]])
        fork.run(heard(other)[LENGTH:])
        print("copied in a fork:", np.array_equal(fork.run(SILENCE).outputs.round(), other))

        # A snapshot goes on from the session's state: here, before the copy is due
        session.rewind(LENGTH + 2)
        elsewhere = client.restore(session.snapshot())
        print("copied elsewhere:", np.array_equal(elsewhere.run(SILENCE).outputs.round(), vectors))
        print("steps on record:", sum(1 for _ in session.recording()), "of", session)


if __name__ == "__main__":
    main(*sys.argv[1:] or ["http://127.0.0.1:8000"])
