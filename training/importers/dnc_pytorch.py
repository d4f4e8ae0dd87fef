"""mthrok/dnc_pytorch: the port of DeepMind's code to PyTorch."""

from collections.abc import Mapping
from typing import Any

from models.cells import LSTM, LSTMConfig
from models.dnc import DNC, DNCConfig
from training.importers.variables import Imported, Variables, fill_torch_lstm

LAYERS = {
    "read_keys": "_read_keys.0",
    "read_strengths": "_read_strengths",
    "write_keys": "_write_keys.0",
    "write_strengths": "_write_strengths",
    "erase_vectors": "_erase_vectors.0",
    "write_vectors": "_write_vectors.0",
    "free_gates": "_free_gate.0",
    "allocation_gate": "_alloc_gate.0",
    "write_gate": "_write_gate.0",
    "read_modes": "_read_mode.0",
}
"""The original's layer of each part of the interface; with an activation, it is the first of a Sequential."""


def dnc_pytorch(config: Mapping[str, Any], variables: Variables) -> Imported:
    """Import the port: it equals DeepMind's code, but its LSTM is torch's, which adds nothing to a gate."""
    model_config = DNCConfig(
        input_size=config["input_size"],
        output_size=config["output_size"],
        memory_size=config["memory_size"],
        word_size=config["word_size"],
        read_heads=config["num_reads"],
        write_heads=config["num_writes"],
        controller=LSTMConfig(hidden_size=config["hidden_size"], forget_bias=0),
        strength="softplus",
        clip=float(config["clip_value"] or 0),
    )
    model = DNC(model_config)
    assert isinstance(model.controller, LSTM)
    fill_torch_lstm(model.controller, variables, "_controller.")
    layers = [(f"_access.{LAYERS[name]}", weight, bias) for name, weight, bias in model.interface.each()]
    for name, weight, bias in [*layers, ("_output", model.output.weight, model.output.bias)]:
        weight.copy_(variables.take(f"{name}.weight", *weight.shape))
        bias.copy_(variables.take(f"{name}.bias", *bias.shape))
    return Imported("dnc", model_config, model)


def dnc_pytorch_config(variables: Variables) -> dict[str, Any]:
    """Return the config values that follow from the variables: all but memory_size and clip_value."""
    (reads,), (writes,) = (variables.shape(f"_access.{gate}.0.bias", 1) for gate in ("_free_gate", "_write_gate"))
    word = variables.shape("_access._write_vectors.0.bias", 1)[0] // max(1, writes)
    return {
        "input_size": variables.shape("_controller.weight_ih", 2)[1] - reads * word,
        "output_size": variables.shape("_output.bias", 1)[0],
        "hidden_size": variables.shape("_controller.weight_hh", 2)[1],
        "word_size": word,
        "num_reads": reads,
        "num_writes": writes,
    }
