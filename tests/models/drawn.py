"""Configs of models drawn at random, for properties that every model is to have that the kernels know."""

from dataclasses import replace

from hypothesis import strategies as st

from models.cells import BasicRNNConfig, FeedForwardConfig, GRUConfig, LSTMConfig, StackConfig
from models.dnc import DNCConfig
from models.ntm import NTMConfig
from models.registry import AnyConfig
from models.rnn import RNNConfig

bounded = st.sampled_from(["tanh", "tanh", "sigmoid", "softsign"])
cells = st.one_of(
    st.builds(
        LSTMConfig,
        hidden_size=st.integers(1, 20),
        forget_bias=st.sampled_from([0.0, 1.0]),
        peepholes=st.booleans(),
        cell_clip=st.sampled_from([0.0, 0.5]),
        projection_size=st.sampled_from([0, 0, 3, 12]),
        activation=bounded,
    ),
    st.builds(GRUConfig, hidden_size=st.integers(1, 20), activation=bounded),
    st.builds(BasicRNNConfig, hidden_size=st.integers(1, 20), activation=bounded),
    st.builds(FeedForwardConfig, hidden_size=st.integers(1, 20), layers=st.integers(1, 3)),
)
controllers = st.one_of(cells, st.lists(cells, min_size=1, max_size=3).map(lambda found: StackConfig(tuple(found))))
sizes = {"input_size": st.integers(1, 12), "output_size": st.integers(1, 20), "controller": controllers}
heads = {"read_heads": st.integers(1, 6), "write_heads": st.integers(1, 3)}
activations = {"output_activation": st.sampled_from(["identity", "sigmoid", "softmax"])}


def any_model(largest_memory: int = 300) -> st.SearchStrategy[AnyConfig]:
    """Return configs of every kind and option that there is a kernel for."""
    memories = {"memory_size": st.integers(1, largest_memory), "word_size": st.integers(1, 20)}
    dncs = st.builds(
        DNCConfig,
        **(sizes | memories | heads | activations),
        strength=st.sampled_from(["oneplus", "softplus"]),
        clip=st.sampled_from([0.0, 0.5, 20.0]),
        masking=st.booleans(),
        deallocation=st.booleans(),
        links=st.sampled_from(["dense", "dense", "none"]),
    ).flatmap(lambda config: st.sampled_from([config, replace(config, link_sharpening=config.links == "dense")]))
    ntms = st.builds(
        NTMConfig,
        **(sizes | memories | heads | activations),
        shift_width=st.sampled_from([1, 3, 5]),
        style=st.sampled_from(["paper", "paper", "pytorch-ntm", "ntm-lasagne"]),
        signed_heads=st.booleans(),
    ).flatmap(lambda config: st.sampled_from([config, replace(config, order="in-turn", write_heads=config.read_heads)]))
    rnns = st.builds(RNNConfig, **(sizes | activations))
    return st.builds(grouped, st.one_of(dncs, ntms, rnns), st.sampled_from([1, 1, 2, 9]))


def grouped(config: AnyConfig, groups: int) -> AnyConfig:
    """Return the config with so many groups of its classes, where its outputs are classes."""
    if config.output_activation != "softmax":
        return config
    return replace(config, output_size=groups * config.output_size, output_groups=groups)
