"""The specification of an ONNX graph of one step: which of its tensors are inputs, state, outputs, traces.

form = "auto"                                  # or "batched", "rows": each row alone, "loop": without a Scan
sample = "speech.wav"                          # a recording of inputs, for the page: .wav or .npy, beside this file

[inputs]                                       # one step's vector, in this order
input = {shape = ["B", 576], carry = 64}       # "B": the batch axis; carry: old numbers put before the new ones

[constants]                                    # inputs that never change
sr = 16000

[state]                                        # input = its next value, an output
h = "hn"
state = {next = "stateN", shape = [2, "B", 128], initial = 0.0}     # or lists of numbers, or "file.npy"

[outputs]                                      # the outputs of a step, in this order
output = {name = "speech", range = [0, 1]}

[trace]                                        # outputs to look at
attention = {}

[step]
sampling_rate = 16000
hop = 512

[about]
license = "MIT"
"""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.config import ConfigError, from_values
from training.importers.variables import ImportFailed

BATCH = "B"
"""The batch axis in a shape."""

CARRY = ".carry"
"""Behind the name of an input, in the name of the leaf with the numbers that it carries from step to step."""

Shape = tuple[int | str, ...]
"""The sizes of a tensor of the graph, BATCH for its batch axis; a tensor without one serves a single row."""

Form = Literal["auto", "batched", "rows", "loop"]

Number = int | float

T = TypeVar("T", bound="Tensor")


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph. tensor: its name there; name: in Engram; shape: None for one that is left out."""

    tensor: str
    name: str
    shape: Shape | None = None

    @property
    def row_shape(self) -> list[int]:
        """The sizes of one row, without the batch axis."""
        return [size for size in self.shape or () if isinstance(size, int)]


@dataclass(frozen=True)
class Part(Tensor):
    """A part of the inputs, the outputs or the traces of a step.

    range: of its numbers, for the page. carry: of an input, how many of its numbers are the last ones of the step
    before. vocabulary: of an input of tokens, their number.
    """

    range: tuple[float, float] | None = None
    carry: int = 0
    vocabulary: int | None = None

    @property
    def numbers(self) -> int:
        """The numbers of this part in the vector of a step."""
        return math.prod(self.row_shape) - self.carry


@dataclass(frozen=True)
class Leaf(Tensor):
    """A part of the state: an input of the graph, and `next`, the output that is its next value.

    initial: before the first step, a number or an array in the shape of one row; None for zeros by default.
    """

    next: str | None = None
    initial: Any = None

    @property
    def initial_values(self) -> NDArray[Any]:
        """The number, or the array, before the first step."""
        return np.asarray(0 if self.initial is None else self.initial)


@dataclass(frozen=True)
class StepFacts:
    """A step in words. sampling_rate: samples per second; hop: new samples in a step."""

    sampling_rate: Number | None = None
    hop: int | None = None
    units: str | None = None
    preprocessing: str | None = None

    def __post_init__(self) -> None:
        for name in ("sampling_rate", "hop"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"step.{name}: expected a number above 0, got {value!r}")


@dataclass(frozen=True)
class About:
    """The origin of a graph."""

    description: str | None = None
    license: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class GraphSpec:
    """A specification. where: its file, for errors."""

    where: str = "the specification"
    inputs: tuple[Part, ...] = ()
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    state: tuple[Leaf, ...] = ()
    outputs: tuple[Part, ...] = ()
    trace: tuple[Part, ...] = ()
    form: Form = "auto"
    sample: Path | None = None
    step: StepFacts = StepFacts()
    about: About = About()

    @property
    def fed(self) -> tuple[Tensor, ...]:
        """The inputs of the graph that change from step to step."""
        return (*self.inputs, *self.state)

    @property
    def seen(self) -> tuple[Part, ...]:
        """The outputs of the graph that are no state: outputs and traces."""
        return (*self.outputs, *self.trace)

    @property
    def input_size(self) -> int:
        """The numbers in the vector of a step."""
        return sum(part.numbers for part in self.inputs)


LARGEST = float(np.finfo(np.float32).max)
"""The largest number in the vector of a step."""

MOST_TOKENS = 2**24
"""Tokens at most: float32 has all whole numbers up to here."""

LONGEST_NAME = 100

NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{LONGEST_NAME}}}")

SECTIONS = ("inputs", "constants", "state", "outputs", "trace", "step", "about")

OPTIONS: dict[str, dict[str, Any]] = {
    "inputs": {"name": str, "shape": list, "range": list, "carry": int, "vocabulary": int},
    "state": {"name": str, "shape": list, "next": str, "initial": (int, float, bool, list, str)},
    "outputs": {"name": str, "shape": list, "range": list},
    "trace": {"name": str, "shape": list, "range": list},
}
"""The keys of a tensor in each section, and the types of their values."""


def read_spec(file: Path) -> GraphSpec:
    """Return the specification in a TOML file. Raises ImportFailed, which names the place in it."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ImportFailed(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of TOML, of its letters, of numbers of thousands of digits
        raise ImportFailed(f"{file}: not TOML: {error}") from error
    try:
        return _spec(values, file)
    except ConfigError as error:
        raise ImportFailed(f"{file}: {error}") from error


def _spec(values: dict[str, Any], file: Path) -> GraphSpec:
    known = (*SECTIONS, "form", "sample")
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ConfigError(f"unknown key {unknown[0]!r}; known keys are {', '.join(known)}")
    sections = {name: _section(values, name) for name in SECTIONS}
    top: dict[str, Any] = {name: values[name] for name in ("form", "sample") if name in values}
    checked = from_values(_Top, top, "top level")
    state = tuple(_leaf(tensor, value, file) for tensor, value in sections["state"].items())
    spec = GraphSpec(
        where=str(file),
        inputs=_parts(sections, "inputs"),
        constants={name: _constant(name, value, file) for name, value in sections["constants"].items()},
        state=state,
        outputs=_parts(sections, "outputs"),
        trace=_parts(sections, "trace"),
        form=checked.form,
        sample=None if checked.sample is None else file.parent / checked.sample,
        step=from_values(StepFacts, sections["step"], "step"),
        about=from_values(About, sections["about"], "about"),
    )
    check_names(spec)
    return spec


@dataclass(frozen=True)
class _Top:
    form: Form = "auto"
    sample: str | None = None


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = values.get(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"[{name}]: expected a table, got {section!r}")
    return section


def _parts(sections: Mapping[str, dict[str, Any]], section: str) -> tuple[Part, ...]:
    return tuple(_part(section, tensor, value) for tensor, value in sections[section].items())


def _part(section: str, tensor: str, value: Any) -> Part:
    where = f"[{section}] {tensor}"
    options = _options(section, where, value)
    shape = _shape(where, options["shape"]) if "shape" in options else None
    span = _range(where, options["range"]) if "range" in options else None
    carry, vocabulary = options.get("carry", 0), options.get("vocabulary")
    if carry < 0:
        raise ConfigError(f"{where}.carry: expected a whole number of at least 0, got {carry}")
    if vocabulary is not None and not 1 <= vocabulary <= MOST_TOKENS:
        raise ConfigError(
            f"{where}.vocabulary: expected the number of tokens, from 1 to {MOST_TOKENS}, got {vocabulary}"
        )
    return Part(tensor, _name(where, tensor, options), shape, span, carry, vocabulary)


def _leaf(tensor: str, value: Any, file: Path) -> Leaf:
    where = f"[state] {tensor}"
    options = _options("state", where, {"next": value} if isinstance(value, str) else value)
    shape = _shape(where, options["shape"]) if "shape" in options else None
    initial = _values(f"{where}.initial", options["initial"], file) if "initial" in options else None
    return Leaf(tensor, _name(where, tensor, options), shape, options.get("next"), initial)


def plain_name(tensor: str) -> str:
    """Return the name of a tensor without the letters that names in Engram do not have."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", tensor).strip("_")[:LONGEST_NAME] or "tensor"


def _name(where: str, tensor: str, options: Mapping[str, Any]) -> str:
    name: str = options.get("name", plain_name(tensor))
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{where}.name: expected at most {LONGEST_NAME} letters, digits, '_', '.' or '-', got {name!r}"
        )
    return name


def _options(section: str, where: str, value: Any) -> dict[str, Any]:
    """Return the options of a tensor. Raises ConfigError for an unknown key or a value of another type."""
    allowed = OPTIONS[section]
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a table of {', '.join(allowed)}, such as {{}}, got {value!r}")
    for key, option in value.items():
        if key not in allowed:
            raise ConfigError(f"{where}: unknown key {key!r}; known keys are {', '.join(allowed)}")
        types = allowed[key] if isinstance(allowed[key], tuple) else (allowed[key],)
        if not isinstance(option, types) or (isinstance(option, bool) and bool not in types):
            expected = " or ".join(kind.__name__ for kind in types)
            raise ConfigError(f"{where}.{key}: expected {expected}, got {option!r}")
    return value


def _shape(where: str, sizes: list[Any]) -> Shape:
    for size in sizes:
        if size != BATCH and (type(size) is not int or size < 1):
            raise ConfigError(f'{where}.shape: expected sizes of at least 1, and "B" for the batch axis, got {size!r}')
    if sizes.count(BATCH) > 1:
        raise ConfigError(f'{where}.shape: expected "B" once, for the one batch axis, got {sizes!r}')
    return tuple(sizes)


def _range(where: str, ends: list[Any]) -> tuple[float, float]:
    numbers = [end for end in ends if type(end) in (int, float) and abs(end) <= LARGEST]
    if len(ends) != 2 or len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ConfigError(f"{where}.range: expected the least and the greatest number of float32, got {ends!r}")
    return float(numbers[0]), float(numbers[1])


def _constant(name: str, value: Any, file: Path) -> NDArray[Any]:
    if not isinstance(value, int | float | bool | list | str):
        raise ConfigError(f"[constants] {name}: expected a number, lists of numbers, or a .npy file, got {value!r}")
    return _values(f"[constants] {name}", value, file)


def _values(where: str, value: Any, file: Path) -> NDArray[Any]:
    """Return numbers, lists of numbers, or those of a .npy file beside the specification as an array."""
    if isinstance(value, str):
        return load_array(where, file.parent / value)
    try:
        array = np.array(value)
    except ValueError as error:
        raise ConfigError(f"{where}: expected lists of one length, got {value!r}") from error
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ConfigError(f"{where}: expected finite numbers, got {value!r}")
    return array


def load_array(where: str, path: Path) -> NDArray[Any]:
    """Return the array of a .npy file. Raises ConfigError unless it holds finite numbers."""
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged file raises nearly every kind
        raise ConfigError(f"{where}: {path} is no .npy file of numbers: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise ConfigError(f"{where}: {path} must hold one array of numbers")
    if not np.isfinite(array).all():
        raise ConfigError(f"{where}: {path} holds numbers that are not finite")
    return array


def check_names(spec: GraphSpec) -> None:
    """Raise ConfigError if a tensor of the graph has two roles, or two parts have one name."""
    roles = {
        "an input of the graph": [
            *((part.tensor, f"[inputs] {part.tensor}") for part in spec.inputs),
            *((name, f"[constants] {name}") for name in spec.constants),
            *((leaf.tensor, f"[state] {leaf.tensor}") for leaf in spec.state),
        ],
        "the next value of one leaf": [(leaf.next, f"[state] {leaf.tensor}") for leaf in spec.state if leaf.next],
        "one output or trace": [
            *((part.tensor, f"[outputs] {part.tensor}") for part in spec.outputs),
            *((part.tensor, f"[trace] {part.tensor}") for part in spec.trace),
        ],
    }
    for role, uses in roles.items():
        _check_once(uses, lambda name, one, other, role=role: f"{name!r} may be {role} only, but is {one} and {other}")
    leaves = [(f"{part.name}{CARRY}", f"[inputs] {part.tensor}.carry") for part in spec.inputs if part.carry]
    for section, parts, others in (
        ("state", spec.state, leaves),
        ("inputs", spec.inputs, []),
        ("outputs", spec.outputs, []),
        ("trace", spec.trace, []),
    ):
        named = [*((part.name, f"[{section}] {part.tensor}") for part in parts), *others]
        _check_once(
            named, lambda name, one, other: f"two have the name {name!r}, {one} and {other}: give one another `name`"
        )


def _check_once(uses: list[tuple[str, str]], message: Any) -> None:
    seen: dict[str, str] = {}
    for name, place in uses:
        if name in seen:
            raise ConfigError(message(name, seen[name], place))
        seen[name] = place


def refined(spec: GraphSpec, more: GraphSpec) -> GraphSpec:
    """Return a specification with what another one adds to its tensors, and with its form, sample, step and about.

    Raises ImportFailed for a tensor that the first does not have in that section, constants, `carry`, `next`.
    """
    _check_addition(spec, more)
    added = {part.tensor: part for part in (*more.fed, *more.seen)}

    def merged(part: T) -> T:
        values = vars(added.get(part.tensor, part)).items()
        defaults = vars(type(part)(part.tensor, plain_name(part.tensor)))
        return replace(part, **{key: value for key, value in values if not np.array_equal(value, defaults[key])})

    return replace(
        more,
        where=spec.where,
        inputs=tuple(map(merged, spec.inputs)),
        state=tuple(map(merged, spec.state)),
        outputs=tuple(map(merged, spec.outputs)),
        trace=tuple(map(merged, spec.trace)),
    )


def _check_addition(spec: GraphSpec, more: GraphSpec) -> None:
    for section in ("inputs", "constants", "state", "outputs", "trace"):
        known, named = (_tensors_of(each, section) for each in (spec, more))
        for name in named:
            if name not in known:
                raise ImportFailed(
                    f"{more.where}: [{section}]: there is no {name!r} in {spec.where}; it has "
                    f"{', '.join(known) or 'none there'}"
                )
    for part in more.inputs:
        if part.carry:
            raise ImportFailed(
                f"{more.where}: [inputs] {part.tensor}.carry: {spec.where} is given whole inputs: keep old numbers in "
                "its state"
            )
    for leaf in more.state:
        if leaf.next:
            raise ImportFailed(f"{more.where}: [state] {leaf.tensor}.next: {spec.where} has its next value already")


def _tensors_of(spec: GraphSpec, section: str) -> list[str]:
    return list(spec.constants) if section == "constants" else [part.tensor for part in getattr(spec, section)]


def to_toml(spec: GraphSpec) -> str:
    """Return a specification as the text of a TOML file, which `read_spec` reads."""
    top = {"form": spec.form if spec.form != "auto" else None, "sample": spec.sample and str(spec.sample)}
    lines = [f"{key} = {_toml(value)}" for key, value in top.items() if value is not None]
    sections: dict[str, dict[str, Any]] = {
        "inputs": {part.tensor: _part_values(part) for part in spec.inputs},
        "constants": {name: value.tolist() for name, value in spec.constants.items()},
        "state": {leaf.tensor: _leaf_values(leaf) for leaf in spec.state},
        "outputs": {part.tensor: _part_values(part) for part in spec.outputs},
        "trace": {part.tensor: _part_values(part) for part in spec.trace},
        "step": facts(spec.step),
        "about": facts(spec.about),
    }
    for name, section in sections.items():
        if section:
            lines += ["", f"[{name}]", *(f"{_key(key)} = {_toml(value)}" for key, value in section.items())]
    return "\n".join(lines).strip() + "\n"


def facts(described: StepFacts | About) -> dict[str, Any]:
    """Return the facts that are given, by name."""
    values = {name: value for name, value in vars(described).items() if value is not None}
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in values.items()
    }


def _part_values(part: Part) -> dict[str, Any]:
    values: dict[str, Any] = {"name": part.name if part.name != plain_name(part.tensor) else None}
    values |= {"shape": part.shape, "range": part.range, "carry": part.carry or None, "vocabulary": part.vocabulary}
    return {key: value for key, value in values.items() if value is not None}


def _leaf_values(leaf: Leaf) -> dict[str, Any]:
    initial = leaf.initial_values
    values = {
        "name": leaf.name if leaf.name != plain_name(leaf.tensor) else None,
        "next": leaf.next,
        "shape": leaf.shape,
        "initial": initial.tolist() if initial.any() else None,
    }
    return {key: value for key, value in values.items() if value is not None}


def _toml(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else repr(value)


def _key(name: str) -> str:
    bare = name and all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in name)
    return name if bare else _quoted(name)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
