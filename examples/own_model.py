"""A user's own model, trained, exported, and served: fast weights learn to say the value that a key was given last.

`python examples/own_model.py runs/own/fast-weights` trains, measures, exports and serves it, and asks the server.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.config import ConfigError
from models.contract import MemoryModel, ModelConfig, Trace
from models.registry import register_model

ENGRAM = [sys.executable, "-m", "engram"]


@dataclass(frozen=True)
class FastWeightsConfig(ModelConfig):
    key_size: int = 32
    value_size: int = 32


class FastWeightsState(NamedTuple):
    weights: Tensor  # [B, value_size, key_size]


@register_model("fast-weights", FastWeightsConfig)
class FastWeights(MemoryModel[FastWeightsState]):
    """y = U W k, then W <- W + b (v - W k) k^T, the delta rule (Schlag, Irie & Schmidhuber, arXiv 2102.11174)."""

    def __init__(self, config: FastWeightsConfig) -> None:
        super().__init__(config)
        self.config = config
        self.key = nn.Linear(self.encoded_size, config.key_size)
        self.value = nn.Linear(self.encoded_size, config.value_size)
        self.gate = nn.Linear(self.encoded_size, 1)
        self.output = nn.Linear(config.value_size, config.output_size)

    def initial_state(self, batch_size: int, memory_size: int | None = None) -> FastWeightsState:
        if memory_size is not None:
            raise ConfigError(f"memory_size {memory_size}: fast weights have no memory locations")
        return FastWeightsState(self.gate.weight.new_zeros(batch_size, self.config.value_size, self.config.key_size))

    def _step(self, inputs: Tensor, state: FastWeightsState) -> tuple[Tensor, FastWeightsState, Trace]:
        encoded = self.encode(inputs)
        key, gate = normalize(torch.softmax(self.key(encoded), 1)), torch.sigmoid(self.gate(encoded))
        recalled = (state.weights @ key.unsqueeze(2)).squeeze(2)
        written = gate * (self.value(encoded) - recalled)
        following = FastWeightsState(state.weights + written.unsqueeze(2) * key.unsqueeze(1))
        return self.output(recalled), following, {"gate": gate, "key": key}


def main(out: Path, port: int = 8000) -> None:
    preset, models = Path(__file__).with_name("fast_weights.toml"), ["--models", __file__]
    subprocess.run([*ENGRAM, "train", preset, *models, "--out", out], check=True)
    subprocess.run([*ENGRAM, "evaluate", out, *models, "--at", "pairs=8", "overwrites=40", "--save"], check=True)
    subprocess.run([*ENGRAM, "export", out, *models], check=True)
    serve = ["serve", "--checkpoints", out.parent, "--port", str(port), "--store", "memory"]
    with subprocess.Popen([*ENGRAM, *serve]) as server:
        until_it_is_up = httpx.HTTPTransport(retries=8)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=until_it_is_up) as client:
            # keys and values of four bits, then a flag: 1100 gets 1010, 0011 gets 1000, 1100 gets 0111; 1100 is asked
            steps = ["110010100", "001110000", "110001110", "000000001", "110000000"]
            answer = client.post("/infer", json={"model": out.name, "inputs": [list(map(int, step)) for step in steps]})
        print("key 1100 has the value", *map(round, answer.json()["outputs"][-1]))
        server.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
