"""Dynamic n-grams: predict the next bit of a source that is new in every sequence ([NTM] section 4.4)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.config import ConfigError, require_at_least
from training.tasks.base import BitTask, Episode, Range, draw


@dataclass(frozen=True)
class NGrams(BitTask):
    """Bits, each drawn by a probability that depends on the `order` - 1 bits before it; the model predicts the next.

        time     0 1 2 3 4 5 ...
        bit      a b c d e f ...      1 channel
        target       d e f g ...      the next bit, due once the context is whole; here order 4, T = length - 1

    Each sequence draws a table of probabilities P(1 | context), every entry from Beta(1/2, 1/2). The first `order` - 1
    bits are fair. length: the range of the number of bits. Errors are the cost of the predictions in bits, the sum of
    -log2 of the probability given to each bit; the least that one can expect is the cost of the Bayes-optimal
    estimator, P(1 | context) = (N1 + 1/2) / (N0 + N1 + 1), of the bits that followed the context so far ([NTM] equation
    10).
    """

    order: int = 6
    length: Range = (200, 200)

    name = "ngrams"
    paper = "Graves, Wayne & Danihelka, Neural Turing Machines, arXiv 1410.5401, section 4.4"
    unit = "bits of cost"
    input_size = 1
    output_size = 1

    def __post_init__(self) -> None:
        require_at_least(self, 2, "order")
        self.require_ranges()
        if self.length[0] <= self.order:
            raise ConfigError(f"NGrams.length must be more than order {self.order}, got {self.length[0]}")

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        length, context_size = draw(generator, self.length), self.order - 1
        # sin^2(pi U / 2) of a uniform U has the distribution Beta(1/2, 1/2).
        uniform = torch.rand(batch_size, 2**context_size, generator=generator)
        table = torch.sin(uniform * math.pi / 2) ** 2
        chances = torch.rand(length, batch_size, generator=generator)
        bits = torch.empty(length, batch_size)
        bits[:context_size] = (chances[:context_size] < 0.5).float()
        context = _contexts(bits, self.order, context_size)
        for step in range(context_size, length):
            bit = chances[step] < table.gather(1, context[:, None]).squeeze(1)
            bits[step] = bit
            context = (2 * context + bit) % 2**context_size
        mask = torch.zeros(length - 1, batch_size)
        mask[context_size - 1 :] = 1
        return Episode(bits[:-1].unsqueeze(2), bits[1:].unsqueeze(2), mask)

    def errors(self, outputs: Tensor, episode: Episode) -> Tensor:
        """Return the cost of the predictions of each sequence in bits: [B]. outputs: [T, B, 1], logits."""
        return self.cost(outputs, episode)

    def optimum(self, episode: Episode) -> Tensor:
        """Return the cost of the Bayes-optimal estimator on each sequence in bits: [B]."""
        context_size = self.order - 1
        bits = torch.cat([episode.inputs[:1], episode.targets])[:, :, 0]
        rows = torch.arange(bits.shape[1])
        counts = torch.full((bits.shape[1], 2**context_size, 2), 0.5)
        cost = torch.zeros(bits.shape[1])
        for step in range(context_size, len(bits)):
            context, bit = _contexts(bits, self.order, step), bits[step].long()
            seen = counts[rows, context]
            cost -= torch.log2(seen[rows, bit] / seen.sum(1)) * episode.mask[step - 1]
            counts[rows, context, bit] += 1
        return cost


def _contexts(bits: Tensor, order: int, step: int) -> Tensor:
    """Return the context before a step, its bits read as a binary number: [length, B] -> [B]."""
    places = 2 ** torch.arange(order - 2, -1, -1)
    return (bits[step - order + 1 : step].long() * places[:, None]).sum(0)
