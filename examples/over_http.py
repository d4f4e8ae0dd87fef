"""Copy a sequence over HTTP: in one request, and step by step in a session.

scripts/serve                                   # in another terminal
python examples/over_http.py [http://127.0.0.1:8000]
"""

import random
import sys

import httpx

LENGTH, BITS = 6, 8


def copy_sequence() -> tuple[list[list[float]], list[list[int]]]:
    """Return the inputs of a copy sequence and its vectors: start flag, vectors, end flag, silence."""
    vectors = [[random.randint(0, 1) for _ in range(BITS)] for _ in range(LENGTH)]
    start, end = [[0.0] * BITS + [1.0, 0.0]], [[0.0] * BITS + [0.0, 1.0]]
    return start + [[*map(float, vector), 0.0, 0.0] for vector in vectors] + end + [[0.0] * 10] * LENGTH, vectors


def said(outputs: list[list[float]]) -> list[list[int]]:
    """Return the bits of the model's copy, after the end flag."""
    return [[round(value) for value in step] for step in outputs[LENGTH + 2 :]]


def main(url: str) -> None:
    inputs, vectors = copy_sequence()
    with httpx.Client(base_url=url, timeout=30) as client:
        print("models:", ", ".join(model["name"] for model in client.get("/models").raise_for_status().json()))

        request = {"model": "dnc-copy", "inputs": inputs, "trace": ["write_weights"]}
        answer = client.post("/infer", json=request).raise_for_status().json()
        locations = [max(range(len(step[0])), key=step[0].__getitem__) for step in answer["trace"]["write_weights"]]
        print("copied in one request:", said(answer["outputs"]) == vectors)
        print("locations the vectors were written to:", locations[1 : LENGTH + 1])

        session = client.post("/sessions", json={"model": "dnc-copy"}).raise_for_status().json()["id"]
        outputs = []
        for step, vector in enumerate(inputs):
            request = {"inputs": [vector], "if_step": step}
            outputs += client.post(f"/sessions/{session}/steps", json=request).raise_for_status().json()["outputs"]
        print("copied step by step:", said(outputs) == vectors)
        usage = client.get(f"/sessions/{session}/state", params={"names": "usage"}).json()["state"]["usage"]
        print(f"memory in use at the end: {sum(usage):.1f} of {len(usage)} locations")
        client.delete(f"/sessions/{session}")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["http://127.0.0.1:8000"])
