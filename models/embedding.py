"""The embedding of a model whose inputs are tokens, the numbers of words."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.config import require_at_least


@dataclass(frozen=True)
class EmbeddingConfig:
    """Tokens are whole numbers from 0 to vocabulary_size - 1; each has a learned vector of `size` numbers."""

    vocabulary_size: int
    size: int

    def __post_init__(self) -> None:
        require_at_least(self, 1, "vocabulary_size", "size")


class Embedding(nn.Module):
    """e = E[token], for tokens that come as floating-point numbers, like all inputs."""

    def __init__(self, config: EmbeddingConfig) -> None:
        super().__init__()
        self.vocabulary_size = config.vocabulary_size
        self.size = config.size
        self.vectors = nn.Embedding(config.vocabulary_size, config.size)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [B, 1]. Returns [B, size]; zeros for an unknown number, so that no row can break another's step."""
        known = (tokens == tokens.round()) & (tokens >= 0) & (tokens < self.vocabulary_size)
        numbers = torch.where(known, tokens, 0).long().squeeze(1)
        vectors: Tensor = self.vectors(numbers)
        return vectors * known
