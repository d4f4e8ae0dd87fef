"""The models that the kernels compute, by their configs as plain values. Standard library only."""

from collections.abc import Mapping
from typing import Any, NamedTuple

CELLS = ("basic-rnn", "gru", "lstm", "feed-forward")
KINDS = ("rnn", "dnc", "ntm")
CELL_ACTIVATIONS = ("tanh", "sigmoid", "relu", "elu", "softsign", "linear", "identity")
BOUNDED = ("tanh", "sigmoid", "softsign")

INPUTS = -1
"""The number, among those of layers, of the inputs of the model and the vectors read."""

PLAIN: dict[str, dict[str, Any]] = {
    "ntm": {"rectified_heads": (False,)},
    "dnc": {"links": ("dense", "none")},
    "rnn": {},
    "basic-rnn": {"activation": CELL_ACTIVATIONS},
    "gru": {"activation": CELL_ACTIVATIONS},
    "lstm": {"activation": CELL_ACTIVATIONS, "layer_norm": ("none",)},
    "feed-forward": {"activation": CELL_ACTIVATIONS},
}
"""Options of models and cells, with the values that have a kernel; torch or ONNX Runtime compute the others."""


class NoKernel(ValueError):
    """A model that the kernels cannot compute, or a machine without their library; the message says which."""


def not_fused(kind: str, config: Mapping[str, Any]) -> str | None:
    """Return why the kernels cannot compute a model, or None where they can."""
    if kind not in KINDS:
        return f"it is of kind {kind!r}"
    try:
        return _not_plain(kind, config) or _cell_not_fused(config["controller"])
    except (KeyError, TypeError, AttributeError) as error:
        return f"its config does not describe a model: {error!r}"


def not_trained(config: Mapping[str, Any]) -> str | None:
    """Return why the kernels cannot train a model that they can step, or None where they can: they have no dropout."""
    if config.get("bypass_dropout"):
        return f"its bypass_dropout is {config['bypass_dropout']}"
    return _dropped(config["controller"])


def _dropped(cell: Mapping[str, Any]) -> str | None:
    if cell["kind"] == "stack":
        return next(filter(None, map(_dropped, cell["cells"])), None)
    if cell["kind"] != "dropout":
        return None
    rates = [cell.get(name, 0.0) for name in ("inputs", "outputs", "state")]
    return f"its controller drops {max(rates)}" if any(rates) else _dropped(cell["cell"])


def _not_plain(kind: str, config: Mapping[str, Any]) -> str | None:
    for name, values in PLAIN.get(kind, {}).items():
        if config.get(name, values[0]) not in values:
            return f"its {name} is {config[name]!r}"
    return None


def _cell_not_fused(cell: Mapping[str, Any]) -> str | None:
    kind = cell.get("kind")
    if kind == "stack":
        return next(filter(None, map(_cell_not_fused, cell["cells"])), None)
    if kind == "dropout":  # dropout is off when serving
        return _cell_not_fused(cell["cell"])
    if kind not in CELLS:
        return f"its controller is of kind {kind!r}"
    return _not_plain(kind, cell)


def is_bounded(config: Mapping[str, Any]) -> bool:
    """Return whether the outputs of the controller are bounded for any inputs: then so is all that follows."""
    return _is_bounded(config["controller"])


def _is_bounded(cell: Mapping[str, Any]) -> bool:
    if cell["kind"] == "stack":
        return all(_is_bounded(layer) for layer in cell["cells"])
    if cell["kind"] == "dropout":
        return _is_bounded(cell["cell"])
    return cell.get("activation", "tanh") in BOUNDED


class Wired(NamedTuple):
    """A layer of a controller: its cell, the names of its weights and of its state, the numbers of its inputs."""

    cell: Mapping[str, Any]
    name: str
    prefix: str
    below: tuple[int, ...]


def layers(controller: Mapping[str, Any]) -> tuple[list[Wired], tuple[int, ...]]:
    """Return the layers of a controller, from the bottom, and the numbers of those whose outputs are its own."""
    found: list[Wired] = []
    return found, _wire(controller, "controller", "controller", (INPUTS,), found)


def _wire(
    cell: Mapping[str, Any], name: str, prefix: str, below: tuple[int, ...], found: list[Wired]
) -> tuple[int, ...]:
    """Append the layers of a cell to those found before; return the numbers of those whose outputs are its own."""
    if cell["kind"] == "dropout":
        return _wire(cell["cell"], f"{name}.cell", prefix, below, found)
    if cell["kind"] == "stack":
        inputs: tuple[int, ...] = below if cell.get("skip_connections") else ()
        outputs: tuple[int, ...] = ()
        for number, inner in enumerate(cell["cells"]):
            own = _wire(inner, f"{name}.cells.{number}", f"{prefix}.layer{number}", below, found)
            outputs = (*outputs, *own) if cell.get("skip_connections") else own
            below = (*inputs, *own)
        return outputs
    names = [name]
    if cell["kind"] == "feed-forward":
        names = [f"{name}.layers.{number}" for number in range(cell.get("layers", 1))]
    for layer in names:
        found.append(Wired(cell, layer, prefix, below))
        below = (len(found) - 1,)
    return below
