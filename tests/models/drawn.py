"""Random configs of models, for the properties of all models that the kernels know."""

from dataclasses import replace

from hypothesis import strategies as st

from models.cells import BasicRNNConfig, DropoutConfig, FeedForwardConfig, GRUConfig, LSTMConfig, StackConfig
from models.dnc import DNCConfig
from models.embedding import EmbeddingConfig
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


def either(*strategies):
    """Draw from strategies with equal chances, whatever the number of their cases."""
    return st.sampled_from(strategies).flatmap(lambda chosen: chosen)


def stacks(of):
    """Return stacks of two or three cells, with and without skip connections."""
    return st.builds(StackConfig, st.lists(of, min_size=2, max_size=3).map(tuple), skip_connections=st.booleans())


layers = either(cells, cells, cells.map(DropoutConfig), stacks(cells))
controllers = either(cells, stacks(layers))
sizes = {"input_size": st.integers(1, 12), "output_size": st.integers(1, 20), "controller": controllers}
heads = {"read_heads": st.integers(1, 6), "write_heads": st.integers(1, 3)}
programs = {"programs": st.sampled_from([1, 1, 2, 3, 17]), "program_key_size": st.integers(1, 12)}
programs |= {"look_up_scaling": st.booleans()}
activations = {"output_activation": st.sampled_from(["identity", "sigmoid", "softmax"])}


def any_model(largest_memory: int = 300) -> st.SearchStrategy[AnyConfig]:
    """Return configs of every kind and option that the kernels know."""
    memories = {"memory_size": st.integers(1, largest_memory), "word_size": st.integers(1, 20)}
    dncs = st.builds(
        DNCConfig,
        **(sizes | memories | heads | programs | activations),
        strength=st.sampled_from(["oneplus", "softplus"]),
        clip=st.sampled_from([0.0, 0.5, 20.0]),
        masking=st.booleans(),
        deallocation=st.booleans(),
        links=st.sampled_from(["dense", "dense", "none"]),
    ).flatmap(lambda config: st.sampled_from([config, replace(config, link_sharpening=config.links == "dense")]))
    ntms = st.builds(
        ntm_of,
        **(sizes | memories | heads | programs | activations),
        shift_width=st.sampled_from([1, 3, 5]),
        style=st.sampled_from(["paper", "paper", "pytorch-ntm", "ntm-lasagne"]),
        signed_heads=st.booleans(),
        order=st.sampled_from(["before-controller", "in-turn", "together"]),
    )
    rnns = st.builds(RNNConfig, **(sizes | activations))
    tokens = st.builds(EmbeddingConfig, st.integers(1, 9), st.integers(1, 12))
    models = st.builds(of_tokens, either(dncs, ntms, rnns), either(st.none(), st.none(), tokens))
    return st.builds(grouped, models, st.sampled_from([1, 1, 2, 9]))


def ntm_of(*, order, read_heads, write_heads, **options):
    """Return an NTM, with as many write heads as read heads if they act in turn."""
    writes = read_heads if order == "in-turn" else write_heads
    return NTMConfig(order=order, read_heads=read_heads, write_heads=writes, **options)


def of_tokens(config: AnyConfig, embedding: EmbeddingConfig | None) -> AnyConfig:
    """Return the config with tokens as its inputs, if it has an embedding."""
    return replace(config, input_size=1, embedding=embedding) if embedding else config


def grouped(config: AnyConfig, groups: int) -> AnyConfig:
    """Return the config with `groups` groups of classes, if its outputs are classes."""
    if config.output_activation != "softmax":
        return config
    return replace(config, output_size=groups * config.output_size, output_groups=groups)
