"""Write sequences and their outputs for NVIDIA's perf_analyzer, which then checks every answer of a server.

    engram serve
    python examples/for_perf_analyzer.py http://127.0.0.1:8000 dnc-copy > sequences.json
    perf_analyzer -m dnc-copy -x 2 --input-data sequences.json --concurrency-range 4 --request-count 400

The outputs are those of `POST /infer`, a whole sequence at once. perf_analyzer sends one step a request.
"""

import json
import random
import sys

import httpx

SEQUENCES, STEPS = 4, 20


def main(url: str, model: str) -> None:
    """Print the document for the option --input-data: random inputs, and the outputs to compare with."""
    with httpx.Client(base_url=url) as server:
        width = server.get(f"/models/{model}").raise_for_status().json()["input_size"]
        inputs = [[[random.random() for _ in range(width)] for _ in range(STEPS)] for _ in range(SEQUENCES)]
        answers = [server.post("/infer", json={"model": model, "inputs": sequence}) for sequence in inputs]
        outputs = [answer.raise_for_status().json()["outputs"] for answer in answers]
    data = [tensors("inputs", sequence) for sequence in inputs]
    print(json.dumps({"data": data, "validation_data": [tensors("outputs", sequence) for sequence in outputs]}))


def tensors(name: str, sequence: list[list[float]]) -> list[dict[str, dict[str, list[float]]]]:
    """Return the tensors of a sequence, one for each step."""
    return [{name: {"content": numbers, "shape": [len(numbers)]}} for numbers in sequence]


if __name__ == "__main__":
    main(*sys.argv[1:])
