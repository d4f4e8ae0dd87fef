"""A user's own task, trained, measured, exported, and served: say whether the number of ones so far is odd.

python examples/own_task.py runs/own/parity

runs these commands (plot, zoo and --seeds take --tasks, too):

engram train examples/parity.toml --tasks examples/own_task.py --out runs/own/parity
engram evaluate runs/own/parity --tasks examples/own_task.py --at length=20 --at length=100 --save
engram export runs/own/parity
engram serve --checkpoints runs/own
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import torch

from training.tasks import BitTask, Episode, Range, register
from training.tasks.base import draw, random_bits

ENGRAM = [sys.executable, "-m", "engram"]


@register
@dataclass(frozen=True)
class Parity(BitTask):
    """bits  # . # # .      target  # # . # #"""

    length: Range = (1, 20)
    name, input_size, output_size = "parity", 1, 1

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        bits = random_bits(generator, draw(generator, self.length), batch_size, 1)
        return Episode(bits, bits.cumsum(0) % 2, mask=torch.ones(bits.shape[:2]))


def main(out: Path, port: int = 8000) -> None:
    preset, tasks = Path(__file__).with_name("parity.toml"), ["--tasks", __file__]
    subprocess.run([*ENGRAM, "train", preset, *tasks, "--out", out], check=True)
    subprocess.run([*ENGRAM, "evaluate", out, *tasks, "--at", "length=20", "--at", "length=100", "--save"], check=True)
    subprocess.run([*ENGRAM, "export", out], check=True)
    words = ["serve", "--checkpoints", out.parent, "--port", str(port), "--store", "memory"]
    with subprocess.Popen([*ENGRAM, *words]) as server:
        until_it_is_up = httpx.HTTPTransport(retries=8)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=until_it_is_up) as client:
            answer = client.post("/infer", json={"model": out.name, "inputs": [[1], [0], [1], [1]]})
        print("odd so far:", [round(output[0]) for output in answer.json()["outputs"]])
        server.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
