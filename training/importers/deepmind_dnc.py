"""google-deepmind/dnc, the code that came with the Nature paper."""

from collections.abc import Mapping
from typing import Any

from models.cells import LSTM, LSTMConfig
from models.dnc import DNC, DNCConfig
from training.importers.variables import Imported, Variables, fill_linear

THEIR_NAMES = {"free_gates": "free_gate", "read_modes": "read_mode"}
"""Parts of the interface whose layers have another name in the original."""


def deepmind_dnc(config: Mapping[str, Any], variables: Variables) -> Imported:
    """Import DeepMind's DNC: its LSTM, Sonnet's, adds 1 to the forget gate, and its gates are i, j, f, o, as ours."""
    model_config = DNCConfig(
        input_size=config["input_size"],
        output_size=config["output_size"],
        memory_size=config["memory_size"],
        word_size=config["word_size"],
        read_heads=config["num_reads"],
        write_heads=config["num_writes"],
        controller=LSTMConfig(hidden_size=config["hidden_size"]),
        strength="softplus",
        clip=float(config.get("clip_value") or 0),
    )
    model = DNC(model_config)
    assert isinstance(model.controller, LSTM)
    fill_linear(model.controller.gates, variables, "dnc/lstm/w_gates:0", "dnc/lstm/b_gates:0")
    for name, weight, bias in model.interface.each():
        theirs = f"dnc/memory_access/{THEIR_NAMES.get(name, name)}"
        weight.copy_(variables.take(f"{theirs}/w:0", *weight.T.shape).T)
        bias.copy_(variables.take(f"{theirs}/b:0", *bias.shape))
    fill_linear(model.output, variables, "dnc/output_linear/w:0", "dnc/output_linear/b:0")
    return Imported("dnc", model_config, model)
