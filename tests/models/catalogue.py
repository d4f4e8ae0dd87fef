"""Every registered model in several shapes: the table over which the laws are tested, with inputs and states."""

from typing import Any

import torch
from torch import Tensor

from models.cells import (
    BasicRNNConfig,
    DropoutConfig,
    FeedForwardConfig,
    GRUConfig,
    LSTMConfig,
    StackConfig,
)
from models.contract import MemoryModel, unroll
from models.dnc import DNCConfig
from models.embedding import EmbeddingConfig
from models.ntm import NTMConfig
from models.registry import MODELS, AnyConfig
from models.rnn import RNNConfig

LSTM = LSTMConfig(hidden_size=5)
FEED_FORWARD = FeedForwardConfig(hidden_size=6)
GRU = GRUConfig(hidden_size=4)
BASIC_RNN = BasicRNNConfig(hidden_size=5)
STACK = StackConfig((LSTM, GRU, FEED_FORWARD))
NESTED_STACK = StackConfig(
    (GRU, StackConfig((BASIC_RNN, FeedForwardConfig(hidden_size=3, layers=2)), skip_connections=True)), True
)
SKIPPING_STACK = StackConfig((BASIC_RNN, StackConfig((GRU,)), LSTM), skip_connections=True)
TOKENS = EmbeddingConfig(vocabulary_size=7, size=3)
DROPOUT = DropoutConfig(LSTM, inputs=0.1, state=0.3)

CATALOGUE: dict[str, AnyConfig] = {
    "dnc": DNCConfig(3, 2, memory_size=6, word_size=4, controller=LSTM),
    "dnc-3-read-heads": DNCConfig(3, 2, memory_size=5, word_size=3, read_heads=3, controller=LSTM),
    "dnc-3-write-heads": DNCConfig(3, 2, memory_size=6, word_size=3, write_heads=3, controller=LSTM),
    "dnc-2-read-3-write-heads": DNCConfig(2, 4, 7, 3, read_heads=2, write_heads=3, controller=LSTM),
    "dnc-no-clip": DNCConfig(3, 2, memory_size=6, word_size=4, write_heads=2, controller=BASIC_RNN, clip=0),
    "dnc-small-clip": DNCConfig(3, 2, memory_size=6, word_size=4, controller=LSTM, clip=0.6),
    "dnc-feed-forward": DNCConfig(3, 2, memory_size=6, word_size=4, controller=FEED_FORWARD),
    "dnc-sizes-of-1": DNCConfig(
        1, 1, memory_size=1, word_size=1, controller=LSTMConfig(hidden_size=1), program_key_size=1
    ),
    "dnc-odd-sizes": DNCConfig(7, 5, memory_size=11, word_size=3, controller=LSTMConfig(hidden_size=9, forget_bias=0)),
    "dnc-sigmoid": DNCConfig(2, 3, memory_size=3, word_size=2, controller=LSTM, output_activation="sigmoid"),
    "dnc-groups": DNCConfig(3, 6, 3, 2, controller=LSTM, output_activation="softmax", output_groups=2),
    "dnc-softplus": DNCConfig(3, 2, memory_size=6, word_size=4, controller=STACK, strength="softplus"),
    "dnc-basic-rnn": DNCConfig(3, 2, memory_size=6, word_size=4, controller=BASIC_RNN),
    "dnc-gru": DNCConfig(3, 2, memory_size=6, word_size=4, controller=GRU),
    "dnc-lstm-softsign": DNCConfig(
        3, 2, memory_size=6, word_size=4, controller=LSTMConfig(hidden_size=5, peepholes=True, activation="softsign")
    ),
    "dnc-stack": DNCConfig(3, 2, memory_size=6, word_size=4, controller=STACK),
    "dnc-skip-connections": DNCConfig(3, 2, memory_size=6, word_size=4, controller=NESTED_STACK, clip=0.6),
    "dnc-dropout": DNCConfig(3, 2, memory_size=6, word_size=4, controller=DROPOUT),
    "dnc-masking": DNCConfig(3, 2, memory_size=6, word_size=4, controller=LSTM, masking=True),
    "dnc-deallocation": DNCConfig(3, 2, memory_size=6, word_size=4, controller=LSTM, deallocation=True),
    "dnc-link-sharpening": DNCConfig(
        3, 2, memory_size=6, word_size=4, read_heads=2, write_heads=2, controller=LSTM, link_sharpening=True
    ),
    "dnc-improved": DNCConfig(
        3,
        2,
        memory_size=6,
        word_size=4,
        read_heads=2,
        controller=LSTMConfig(hidden_size=5, layer_norm="adnc"),
        masking=True,
        deallocation=True,
        link_sharpening=True,
        bypass_dropout=0.1,
    ),
    "dnc-no-links": DNCConfig(3, 2, memory_size=6, word_size=4, read_heads=2, controller=LSTM, links="none"),
    "dnc-no-links-improved": DNCConfig(
        3, 2, 6, 4, write_heads=2, controller=LSTM, links="none", masking=True, deallocation=True, programs=3
    ),
    "dnc-sparse-links": DNCConfig(
        3, 2, memory_size=6, word_size=4, read_heads=2, controller=LSTM, links="sparse", links_per_slot=2
    ),
    "dnc-sparse-links-improved": DNCConfig(
        3,
        2,
        memory_size=7,
        word_size=4,
        write_heads=2,
        controller=GRU,
        links="sparse",
        links_per_slot=3,
        masking=True,
        deallocation=True,
        link_sharpening=True,
    ),
    "dnc-sparse-links-all": DNCConfig(
        3, 2, memory_size=5, word_size=4, read_heads=2, controller=DROPOUT, links="sparse", links_per_slot=5
    ),
    "dnc-look-up-scaling": DNCConfig(3, 2, memory_size=6, word_size=4, controller=LSTM, look_up_scaling=True),
    "dnc-programs": DNCConfig(
        3, 2, memory_size=6, word_size=4, read_heads=2, controller=LSTM, programs=3, program_key_size=5
    ),
    "dnc-programs-improved": DNCConfig(
        3,
        2,
        memory_size=6,
        word_size=4,
        write_heads=2,
        controller=STACK,
        masking=True,
        deallocation=True,
        link_sharpening=True,
        programs=2,
        look_up_scaling=True,
        program_key_size=1,
    ),
    "dnc-deep": DNCConfig(3, 2, memory_size=6, word_size=4, controller=StackConfig((LSTM, LSTM, LSTM))),
    "dnc-tokens": DNCConfig(
        1,
        4,
        memory_size=6,
        word_size=4,
        controller=LSTM,
        embedding=TOKENS,
        output_activation="softmax",
        output_at="last-step",
    ),
    "ntm": NTMConfig(3, 2, memory_size=6, word_size=4, controller=LSTM),
    "ntm-pytorch": NTMConfig(
        3,
        2,
        memory_size=6,
        word_size=4,
        read_heads=2,
        write_heads=2,
        controller=StackConfig((LSTM, LSTM)),
        order="in-turn",
        style="pytorch-ntm",
        memory_start="random",
        weights_start="zero",
        reads_start="random",
        controller_start="learned",
        output_activation="sigmoid",
    ),
    "ntm-lasagne": NTMConfig(
        3,
        2,
        memory_size=6,
        word_size=4,
        read_heads=2,
        controller=FEED_FORWARD,
        order="before-controller",
        style="ntm-lasagne",
        signed_heads=True,
        weights_start="learned",
        controller_start="random",
    ),
    "ntm-before-controller": NTMConfig(
        3,
        2,
        memory_size=6,
        word_size=4,
        write_heads=2,
        controller=LSTM,
        order="before-controller",
        controller_start="learned",
    ),
    "ntm-before-controller-stack": NTMConfig(
        3,
        2,
        memory_size=6,
        word_size=4,
        read_heads=2,
        write_heads=3,
        controller=NESTED_STACK,
        order="before-controller",
        weights_start="random",
        controller_start="learned",
    ),
    "ntm-in-turn": NTMConfig(
        3, 2, memory_size=6, word_size=4, read_heads=3, write_heads=3, controller=LSTM, order="in-turn"
    ),
    "ntm-learned-starts": NTMConfig(
        3,
        2,
        6,
        4,
        controller=GRU,
        memory_start="learned",
        weights_start="learned",
        reads_start="learned",
        controller_start="learned",
    ),
    "ntm-random-starts": NTMConfig(
        3,
        2,
        6,
        4,
        controller=STACK,
        memory_start="random",
        weights_start="random",
        reads_start="random",
        controller_start="random",
    ),
    "ntm-uniform-start": NTMConfig(3, 2, 6, 4, controller=LSTM, memory_start="random", weights_start="uniform"),
    "ntm-lasagne-shift-5": NTMConfig(
        3, 2, 6, 4, controller=GRU, order="before-controller", style="ntm-lasagne", shift_width=5
    ),
    "ntm-rectified-heads": NTMConfig(
        3,
        2,
        6,
        4,
        controller=DropoutConfig(GRU, outputs=0.2),
        rectified_heads=True,
        signed_heads=True,
        programs=3,
        memory_start="random",
        weights_start="uniform",
    ),
    "ntm-programs": NTMConfig(3, 2, memory_size=6, word_size=4, controller=LSTM, programs=2, look_up_scaling=True),
    "ntm-programs-in-turn": NTMConfig(
        3,
        2,
        memory_size=6,
        word_size=4,
        read_heads=2,
        write_heads=2,
        controller=GRU,
        order="in-turn",
        programs=18,
        program_key_size=1,
    ),
    "ntm-programs-before-controller": NTMConfig(
        3,
        2,
        memory_size=6,
        word_size=4,
        read_heads=2,
        controller=SKIPPING_STACK,
        order="before-controller",
        style="ntm-lasagne",
        signed_heads=True,
        controller_start="learned",
        programs=3,
        program_key_size=9,
    ),
    "ntm-tokens": NTMConfig(
        1,
        4,
        memory_size=6,
        word_size=4,
        controller=LSTM,
        embedding=TOKENS,
        output_activation="softmax",
        output_at="last-step",
    ),
    "ntm-basic-rnn": NTMConfig(3, 2, memory_size=6, word_size=4, controller=BASIC_RNN),
    "ntm-gru": NTMConfig(3, 2, memory_size=6, word_size=4, controller=GRUConfig(hidden_size=7)),
    "ntm-gru-sigmoid": NTMConfig(
        3, 2, memory_size=6, word_size=4, controller=GRUConfig(hidden_size=5, activation="sigmoid")
    ),
    "ntm-stack": NTMConfig(3, 2, memory_size=6, word_size=4, controller=SKIPPING_STACK),
    "ntm-dropout": NTMConfig(3, 2, memory_size=6, word_size=4, controller=DropoutConfig(GRU, outputs=0.2)),
    "ntm-3-read-heads": NTMConfig(3, 2, memory_size=5, word_size=3, read_heads=3, controller=LSTM),
    "ntm-3-write-heads": NTMConfig(3, 2, memory_size=6, word_size=3, write_heads=3, controller=LSTM),
    "ntm-2-read-2-write-heads": NTMConfig(
        2, 4, memory_size=7, word_size=3, read_heads=2, write_heads=2, controller=LSTM
    ),
    "ntm-shift-1": NTMConfig(
        3, 2, memory_size=6, word_size=4, read_heads=2, write_heads=2, shift_width=1, controller=LSTM
    ),
    "ntm-shift-5": NTMConfig(3, 2, memory_size=8, word_size=4, shift_width=5, controller=LSTM),
    "ntm-shift-wider-than-memory": NTMConfig(3, 2, memory_size=3, word_size=4, shift_width=5, controller=LSTM),
    "ntm-feed-forward": NTMConfig(3, 2, memory_size=6, word_size=4, controller=FEED_FORWARD),
    "ntm-sizes-of-1": NTMConfig(
        1, 1, memory_size=1, word_size=1, controller=LSTMConfig(hidden_size=1), program_key_size=1
    ),
    "ntm-odd-sizes": NTMConfig(7, 5, memory_size=11, word_size=3, controller=LSTMConfig(hidden_size=9, forget_bias=0)),
    "ntm-sigmoid": NTMConfig(2, 3, memory_size=3, word_size=2, controller=LSTM, output_activation="sigmoid"),
    "ntm-groups": NTMConfig(3, 27, 3, 2, controller=LSTM, output_activation="softmax", output_groups=3),
    "rnn": RNNConfig(3, 2, controller=LSTM),
    "rnn-feed-forward": RNNConfig(3, 2, controller=FEED_FORWARD),
    "rnn-feed-forward-deep": RNNConfig(
        3, 2, controller=FeedForwardConfig(hidden_size=5, layers=3, activation="sigmoid")
    ),
    "rnn-basic-rnn": RNNConfig(3, 2, controller=BasicRNNConfig(hidden_size=4, activation="sigmoid")),
    "rnn-gru": RNNConfig(3, 2, controller=GRU),
    "rnn-gru-linear": RNNConfig(3, 2, controller=GRUConfig(hidden_size=4, activation="linear")),
    "rnn-stack": RNNConfig(3, 2, controller=STACK),
    "rnn-skip-connections": RNNConfig(3, 14, controller=SKIPPING_STACK, readout=False),
    "rnn-dropout": RNNConfig(3, 2, controller=DropoutConfig(STACK, inputs=0.1, outputs=0.2, state=0.3)),
    "rnn-lstm-peepholes": RNNConfig(3, 2, controller=LSTMConfig(hidden_size=4, peepholes=True, cell_clip=0.5)),
    "rnn-lstm-projection": RNNConfig(
        3, 2, controller=LSTMConfig(hidden_size=6, projection_size=3, projection_clip=0.4, peepholes=True)
    ),
    "rnn-lstm-elu": RNNConfig(
        3, 2, controller=LSTMConfig(hidden_size=6, projection_size=3, cell_clip=2.0, activation="elu")
    ),
    "rnn-lstm-sigmoid-layer-norm": RNNConfig(
        3, 2, controller=LSTMConfig(hidden_size=5, layer_norm="each-gate", activation="sigmoid")
    ),
    "rnn-lstm-layer-norm": RNNConfig(3, 2, controller=LSTMConfig(hidden_size=5, layer_norm="each-gate")),
    "rnn-lstm-sonnet-layer-norm": RNNConfig(
        3, 2, controller=LSTMConfig(hidden_size=5, layer_norm="sonnet", activation="softsign")
    ),
    "rnn-lstm-adnc-layer-norm": RNNConfig(3, 2, controller=LSTMConfig(hidden_size=5, layer_norm="adnc")),
    "rnn-no-readout": RNNConfig(3, 5, controller=LSTM, readout=False),
    "rnn-sizes-of-1": RNNConfig(1, 1, controller=LSTMConfig(hidden_size=1, forget_bias=0)),
    "rnn-tokens": RNNConfig(1, 4, controller=GRU, embedding=TOKENS, output_activation="softmax", output_at="last-step"),
    "rnn-groups": RNNConfig(
        1,
        5,
        controller=GRUConfig(hidden_size=4, activation="sigmoid"),
        embedding=TOKENS,
        output_activation="softmax",
        output_groups=5,
        output_at="last-step",
    ),
    "rnn-groups-of-16": RNNConfig(3, 80, controller=GRU, output_activation="softmax", output_groups=5),
    "rnn-sigmoid": RNNConfig(7, 5, controller=FeedForwardConfig(hidden_size=3), output_activation="sigmoid"),
}

KINDS = {config: kind for kind, (config, _) in MODELS.items()}


def make(name: str, dtype: torch.dtype = torch.float32, spread: float = 0.5) -> MemoryModel[Any]:
    """Return a model of the table with normal weights and biases of standard deviation `spread`."""
    return make_from(CATALOGUE[name], dtype, spread)


def make_from(config: AnyConfig, dtype: torch.dtype = torch.float32, spread: float = 0.5) -> MemoryModel[Any]:
    """Return the model of `config` with normal weights and biases of standard deviation `spread`."""
    model = MODELS[KINDS[type(config)]][1](config).to(dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=spread)
    return model.eval()


def with_interface(config: AnyConfig, **parts: Any) -> MemoryModel[Any]:
    """Return the model of `config` whose interface is constant: `parts` before activation, zero in all others."""
    model: Any = make_from(config, spread=0)
    pieces = model.interface.bias.detach().split(model.interface.sizes)
    for (name, shape), piece in zip(model.interface.parts.items(), pieces, strict=True):
        piece.copy_(torch.as_tensor(parts.get(name, 0)).expand(shape).flatten())
    return model


def random_inputs(model: MemoryModel[Any], steps: int, batch: int) -> Tensor:
    """Return normal inputs, or tokens, in the dtype of the weights: [T, B, I]."""
    dtype = next(model.parameters()).dtype
    if model.embedding:
        return torch.randint(model.embedding.vocabulary_size, (steps, batch, 1)).to(dtype)
    return torch.randn(steps, batch, model.input_size, dtype=dtype)


@torch.no_grad()
def lived_in_state(model: MemoryModel[Any], batch: int) -> Any:
    """Return the state after a few random steps, with a written memory, different usages, links and precedences."""
    _, state, _ = unroll(model, random_inputs(model, 6, batch), model.initial_state(batch))
    return state
