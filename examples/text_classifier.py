"""A text classifier: train it on a small file, serve it, and classify a sentence.

python examples/text_classifier.py runs/texts/sentences "is it warm in berlin"

Each line of sentences.txt is a label, a tab and a sentence; every fifth is kept for the test. Other labels and
sentences in it need no change of this file. A word that is in no sentence is the token 0.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from engram_client import Client
from training.tasks import AnswerTask, Episode, register

ENGRAM = [sys.executable, "-m", "engram"]
LINES = [line.split("\t") for line in Path(__file__).with_name("sentences.txt").read_text("utf-8").splitlines()]
LABELS = sorted({label for label, _ in LINES})
WORDS = ["?", *sorted({word for _, sentence in LINES for word in sentence.split()})]


def tokens(sentence: str) -> list[int]:
    return [WORDS.index(word) if word in WORDS else 0 for word in sentence.lower().split()]


@register
@dataclass(frozen=True)
class Sentences(AnswerTask):
    """word    will it rain tomorrow      target  . . . weather"""

    split: Literal["train", "test"] = "train"
    name, groups, classes = "sentences", 1, len(LABELS)

    @property
    def model_values(self) -> dict[str, Any]:
        answer = {"output_size": self.output_size, "output_activation": "softmax", "output_at": "last-step"}
        return {"input_size": 1, "embedding": {"vocabulary_size": len(WORDS)}} | answer

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        """Return random sentences of the training set, with one word in five unknown, to learn token 0 too."""
        lines = [line for number, line in enumerate(LINES) if number % 5]
        episode = self._episode([lines[n] for n in torch.randint(len(lines), (batch_size,), generator=generator)])
        known = torch.rand(episode.inputs.shape, generator=generator) > 0.2
        return episode._replace(inputs=episode.inputs * known)

    def test_set(self, batch_size: int) -> Iterator[Episode] | None:
        kept = LINES[::5]
        batches = (kept[start : start + batch_size] for start in range(0, len(kept), batch_size))
        return map(self._episode, batches) if self.split == "test" else None

    def _episode(self, lines: list[list[str]]) -> Episode:
        sentences = [torch.tensor(tokens(sentence)) for _, sentence in lines]
        inputs = pad_sequence(sentences).float().unsqueeze(2)
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        last = torch.arange(len(inputs)).unsqueeze(1) == lengths - 1
        labels = torch.tensor([LABELS.index(label) for label, _ in lines])
        return Episode(inputs, last.unsqueeze(2) * self.one_hot(labels.unsqueeze(1)), last.float(), lengths)

    def render(self, episode: Episode, row: int = 0) -> str:
        words = [WORDS[int(token)] for token in episode.inputs[: episode.lengths[row], row, 0]]
        return f"{' '.join(words)}: {LABELS[int(self.digits(episode.targets[:, row].sum(0)))]}"


def main(out: Path, sentence: str, port: int = 8000) -> None:
    preset, tasks = Path(__file__).with_suffix(".toml"), ["--tasks", __file__]
    subprocess.run([*ENGRAM, "train", preset, *tasks, "--out", out], check=True)
    subprocess.run([*ENGRAM, "evaluate", out, *tasks, "--at", "split=test", "--save"], check=True)
    subprocess.run([*ENGRAM, "export", out], check=True)
    serve = ["serve", "--checkpoints", out.parent, "--port", str(port), "--store", "memory"]
    with subprocess.Popen([*ENGRAM, *serve]) as server:
        with Client(f"http://127.0.0.1:{port}") as client:
            chances = client.infer(out.name, tokens(sentence)).outputs[-1]
        for chance, label in sorted(zip(chances, LABELS, strict=True), reverse=True):
            print(f"{label} {chance:.0%}")
        server.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
