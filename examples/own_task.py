"""A task of one's own, trained, exported, and served: say whether the ones so far are odd in number.

python examples/own_task.py runs/own/parity
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import torch

from training.checkpoint import save_checkpoint
from training.config import preset_from_values
from training.export import export
from training.tasks import TASKS, BitTask, Episode, Range
from training.tasks.base import draw, random_bits
from training.trainer import Trainer


@dataclass(frozen=True)
class Parity(BitTask):
    """bits  # . # # .      target  # # . # #"""

    length: Range = (1, 20)
    name, paper, input_size, output_size = "parity", "an example", 1, 1

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        bits = random_bits(generator, draw(generator, self.length), batch_size, 1)
        return Episode(bits, bits.cumsum(0) % 2, torch.ones(bits.shape[:2]))


TASKS[Parity.name] = Parity
PRESET = {
    "name": "parity",
    "task": {"name": Parity.name},
    "model": {"kind": "rnn", "controller": {"kind": "gru", "hidden_size": 32}},
    "training": {"updates": 2000, "patience": 2},
    "optimizer": {"learning_rate": 1e-2},
}


def main(directory: Path, port: int = 8000) -> None:
    trainer = Trainer(preset_from_values(PRESET))
    trainer.run(lambda _: True)
    save_checkpoint(directory, trainer, f"python examples/own_task.py {directory}")
    export(directory)
    words = ["serve", "--checkpoints", str(directory.parent), "--port", str(port), "--store", "memory"]
    with subprocess.Popen([sys.executable, "-m", "app.cli", *words]) as server:
        until_it_is_up = httpx.HTTPTransport(retries=8)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=until_it_is_up) as client:
            answer = client.post("/infer", json={"model": directory.name, "inputs": [[1], [0], [1], [1]]})
        print("odd so far:", [round(output[0]) for output in answer.json()["outputs"]])
        server.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
