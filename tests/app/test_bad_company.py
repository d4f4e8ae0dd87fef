"""Sessions stepped together with failing ones, on real servers of every back end and store."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from app.sessions.snapshot import Snapshot
from tests.app.harness import running_server

pytestmark = pytest.mark.slow

STEPS = 120
AT_ONCE = 60
"""Steps in a request of an honest session, in each of which another session may fail beside it."""

HONEST, BAD = 6, 6
ROUNDS = 8
"""Sessions that each honest client steps, one after the other."""

HEADERS = {"Content-Type": "application/x-safetensors"}
TOLERANCE = {"fused": 0.0, "onnx": 1e-4, "torch": 1e-4}
"""With the fused kernels, a row has the same bits in any batch; matrix products of the others depend on the batch."""


def open_session(client: httpx.Client) -> str:
    return str(client.post("/sessions", json={"model": "dnc-copy"}).json()["id"])


def spoil(client: httpx.Client, chance: random.Random) -> str:
    """Open a session with very large numbers in its state, which overflow within a step or two."""
    session = open_session(client)
    client.post(f"/sessions/{session}/steps", json={"inputs": [[0.0] * 10]})
    snapshot = Snapshot.from_bytes(client.get(f"/sessions/{session}/snapshot").content)
    chosen = chance.choice([*snapshot.state, "all"])
    leaves = {
        name: np.full_like(leaf, 3e38) if chosen in (name, "all") else leaf for name, leaf in snapshot.state.items()
    }
    forged = Snapshot(snapshot.model, snapshot.fingerprint, snapshot.memory_size, snapshot.step, leaves)
    answer = client.post("/sessions", content=forged.to_bytes(), headers=HEADERS)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def misbehave(client: httpx.Client, seed: int) -> set[int]:
    """Step spoiled sessions, and fresh ones with the largest inputs; return the statuses of the answers."""
    chance, statuses = random.Random(seed), set()
    for _ in range(8):
        session = spoil(client, chance)
        for _ in range(6):
            inputs = [[chance.choice([0.0, 1.0, 3.4e38]) for _ in range(10)] for _ in range(chance.choice([1, 1, 2]))]
            statuses.add(client.post(f"/sessions/{session}/steps", json={"inputs": inputs}).status_code)
            statuses.add(client.post("/infer", json={"model": "dnc-copy", "inputs": inputs}).status_code)
    return statuses


def behave(client: httpx.Client, inputs: list[list[float]]) -> list[Any]:
    """Step a session over a sequence, by several requests; return the outputs."""
    session, outputs = open_session(client), []
    for start in range(0, len(inputs), AT_ONCE):
        answer = client.post(f"/sessions/{session}/steps", json={"inputs": inputs[start : start + AT_ONCE]})
        assert answer.status_code == 200, answer.text
        outputs += answer.json()["outputs"]
    assert client.get(f"/sessions/{session}").json()["step"] == len(inputs)
    return outputs


@pytest.mark.parametrize(
    ("backend", "store"), [("fused", "sqlite"), ("fused", "memory"), ("onnx", "sqlite"), ("torch", "memory")]
)
def test_sessions_beside_failing_ones_have_the_outputs_of_infer(data, few, backend, store):
    inputs = np.random.default_rng(1).integers(0, 2, (HONEST, STEPS, 10)).astype(float).tolist()
    arguments = ["--backend", backend, "--store", store]
    with (
        running_server(*arguments, data=data, checkpoints=few) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
        ThreadPoolExecutor(HONEST + BAD) as pool,
    ):
        bad = [pool.submit(misbehave, client, seed) for seed in range(BAD)]
        came = list(pool.map(lambda rows: [behave(client, rows) for _ in range(ROUNDS)], inputs))
        statuses = set().union(*(job.result() for job in bad))
        expected = [
            client.post("/infer", json={"model": "dnc-copy", "inputs": rows}).json()["outputs"] for rows in inputs
        ]
        assert "failed" not in server.log
    assert statuses <= {200, 422}
    assert 422 in statuses, "no session failed beside them"
    np.testing.assert_allclose(came, [[rows] * ROUNDS for rows in expected], atol=TOLERANCE[backend], rtol=0)
