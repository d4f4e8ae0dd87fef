"""Tokens as vectors."""

import pytest
import torch

from models.config import ConfigError
from models.dnc import DNCConfig
from models.embedding import Embedding, EmbeddingConfig
from models.ntm import NTMConfig
from models.rnn import RNNConfig
from tests.models.catalogue import TOKENS, make

NO_TOKENS = [-1.0, 0.5, 2.999, 4.0, 5.0, 1e30, -1e30, float("inf"), float("-inf"), float("nan")]


def an_embedding():
    """Return one of 4 tokens: token t has the vector (t + 1, -t - 1)."""
    embedding = Embedding(EmbeddingConfig(vocabulary_size=4, size=2))
    with torch.no_grad():
        embedding.vectors.weight.copy_(torch.arange(1.0, 5).unsqueeze(1) * torch.tensor([1.0, -1]))
    return embedding


def test_embedding_of_tokens_is_their_vectors_row_by_row():
    tokens = torch.tensor([[2.0], [0], [3], [2], [1]])
    assert an_embedding()(tokens).tolist() == [[3, -3], [1, -1], [4, -4], [3, -3], [2, -2]]


@pytest.mark.parametrize("value", NO_TOKENS)
def test_embedding_of_an_unknown_token_is_zeros_in_its_row(value):
    vectors = an_embedding()(torch.tensor([[3.0], [value], [0.0]]))
    assert vectors.tolist() == [[4, -4], [0, 0], [1, -1]]


def test_embedding_of_an_unknown_token_trains_no_vector():
    embedding = an_embedding()
    embedding(torch.tensor([[-1.0], [4.0], [float("nan")], [2.0]])).sum().backward()
    assert embedding.vectors.weight.grad.tolist() == [[0, 0], [0, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_embedding_is_in_the_dtype_of_its_vectors(dtype):
    vectors = an_embedding().to(dtype)(torch.zeros(2, 1, dtype=dtype))
    assert vectors.dtype == dtype


def test_embedding_of_the_last_of_many_tokens_is_its_own():
    embedding = Embedding(EmbeddingConfig(vocabulary_size=100_000, size=1))
    last = torch.tensor([[99_998.0], [99_999.0], [100_000.0]])
    expected = torch.cat([embedding.vectors.weight[-2:], torch.zeros(1, 1)])
    assert torch.equal(embedding(last), expected)


@pytest.mark.parametrize("name", ["dnc-tokens", "ntm-tokens", "rnn-tokens"])
def test_model_of_tokens_shows_its_controller_the_vectors(name):
    model = make(name)
    assert (model.input_size, model.encoded_size) == (1, TOKENS.size)
    tokens = torch.tensor([[6.0], [0], [7]])
    expected = torch.stack([*model.embedding.vectors.weight[[6, 0]], torch.zeros(3)])
    assert torch.equal(model.encode(tokens), expected)


@pytest.mark.parametrize("name", ["dnc", "ntm", "rnn"])
def test_model_without_an_embedding_shows_its_controller_the_inputs(name):
    model, inputs = make(name), torch.randn(2, 3)
    assert model.embedding is None
    assert model.encoded_size == 3
    assert torch.equal(model.encode(inputs), inputs)


@pytest.mark.parametrize("field", ["vocabulary_size", "size"])
def test_embedding_config_of_size_0_names_field_and_value(field):
    with pytest.raises(ConfigError, match=rf"EmbeddingConfig\.{field} must be at least 1, got 0"):
        EmbeddingConfig(**{"vocabulary_size": 4, "size": 2, field: 0})


@pytest.mark.parametrize("config", [DNCConfig, NTMConfig, RNNConfig])
def test_config_of_several_inputs_with_embedding_names_the_field(config):
    with pytest.raises(ConfigError, match=rf"{config.__name__}\.input_size must be 1 with an embedding, got 3"):
        config(3, 2, embedding=TOKENS)
