"""loudinthecloud/pytorch-ntm: an NTM whose heads act in turn."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.cells import LSTM, LSTMConfig, Stack, StackConfig
from models.ntm import NTM, NTMConfig
from training.importers.variables import Imported, Variables, fill_rows, fill_torch_lstm


def pytorch_ntm(config: Mapping[str, Any], variables: Variables) -> Imported:
    """Import an NTM with pairs of a read and a write head. Its controller's first state is learned, others random."""
    layers, pairs, word = config["controller_layers"], config["num_heads"], config["word_size"]
    cell = LSTMConfig(hidden_size=config["controller_size"], forget_bias=0)
    model_config = NTMConfig(
        input_size=config["input_size"],
        output_size=config["output_size"],
        output_activation="sigmoid",
        memory_size=config["memory_size"],
        word_size=word,
        read_heads=pairs,
        write_heads=pairs,
        controller=cell if layers == 1 else StackConfig((cell,) * layers),
        order="in-turn",
        style="pytorch-ntm",
        memory_start="random",
        weights_start="zero",
        reads_start="random",
        controller_start="learned",
    )
    model = NTM(model_config)
    cells = list(model.controller.cells) if isinstance(model.controller, Stack) else [model.controller]
    for number, layer in enumerate(cells):
        assert isinstance(layer, LSTM)
        fill_torch_lstm(layer, variables, "ntm.controller.lstm.", f"_l{number}")
    _fill_starts(model, variables)
    _fill_heads(model, variables)
    model.output.weight.copy_(variables.take("ntm.fc.weight", *model.output.weight.shape))
    model.output.bias.copy_(variables.take("ntm.fc.bias", *model.output.bias.shape))
    return Imported("ntm", model_config, model)


def _fill_starts(model: NTM, variables: Variables) -> None:
    config, starts = model.config, dict(model.starts.state_dict())
    memory = variables.take("memory.mem_bias", config.memory_size, config.word_size)
    again = ["ntm.memory", *(f"ntm.heads.{number}.memory" for number in range(2 * config.read_heads))]
    for name in again:
        variables.take_copy(f"{name}.mem_bias", "memory.mem_bias", memory)
    starts["memory.values"].copy_(memory)
    for number in range(config.read_heads):
        start = variables.take(f"ntm.read{number}_bias", 1, config.word_size)
        starts["reads.values"][number].copy_(start[0])
    layers = len(config.controller.cells) if isinstance(config.controller, StackConfig) else 1
    for leaf in "hc":
        size = model.controller.output_size
        values = variables.take(f"ntm.controller.lstm_{leaf}_bias", layers, 1, size)
        for number in range(layers):
            layer = f"layer{number}_" if layers > 1 else ""
            starts[f"controller_{layer}{leaf}.values"].copy_(values[number, 0])


def _fill_heads(model: NTM, variables: Variables) -> None:
    """Fill one layer for each head: k, beta, g, s, gamma, and of a write head e, a. Its shift is reversed."""
    config, hidden = model.config, model.interface.in_features
    word = config.word_size
    addressing = {"keys": word, "key_strength": 1, "interpolation_gate": 1, "shift_weights": 3, "sharpening": 1}
    changes = {"erase_vectors": word, "add_vectors": word}
    pieces: dict[str, list[Tensor]] = {name: [] for name in model.interface.parts}
    for kind, first, sizes in (("fc_read", 0, addressing), ("fc_write", 1, addressing | changes)):
        for number in range(first, 2 * config.read_heads, 2):
            name, rows = f"ntm.heads.{number}.{kind}", sum(sizes.values())
            weight, bias = variables.take(f"{name}.weight", rows, hidden), variables.take(f"{name}.bias", rows)
            whole = torch.cat([weight, bias.unsqueeze(1)], 1)
            for part, piece in zip(sizes, torch.split(whole, list(sizes.values())), strict=True):
                pieces[part].append(piece.flip(0) if part == "shift_weights" else piece)
    for name, weight, bias in model.interface.each():
        fill_rows(weight, bias, pieces[name])


def pytorch_ntm_config(variables: Variables) -> dict[str, Any]:
    """Return the config of a model from its variables alone, for a file of a state_dict has no other."""
    memory_size, word_size = variables.shape("memory.mem_bias", 2)
    layers, _, hidden = variables.shape("ntm.controller.lstm_h_bias", 3)
    pairs = sum(name.startswith("ntm.read") for name in variables.names())
    return {
        "input_size": variables.shape("ntm.controller.lstm.weight_ih_l0", 2)[1] - pairs * word_size,
        "output_size": variables.shape("ntm.fc.weight", 2)[0],
        "controller_size": hidden,
        "controller_layers": layers,
        "num_heads": pairs,
        "memory_size": memory_size,
        "word_size": word_size,
    }
