"""Complete a specification: by what the file declares without doubt, and, if asked to, by guesses."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx

from training.graphs.prepare import dtype_of, inputs_of, outputs_of, sizes_of
from training.graphs.spec import BATCH, GraphSpec, Leaf, Part, Shape, plain_name
from training.importers.variables import ImportFailed

STATE_WORDS = frozenset(
    "h c hx cx hn cn state states hidden cell cache cached mem memory ctx context past rnn lstm gru recurrent".split()  # noqa: SIM905
)
"""Words in the names of states."""

BATCH_NAMES = frozenset({"b", "n", "batch", "batch_size", "bs", "batchsize", "num_envs"})
"""Names of a batch axis."""

TIME_NAMES = frozenset({"t", "time", "seq", "sequence", "sequence_length", "seq_len", "steps", "frames", "length"})
"""Names of a time axis, which has the size 1 in a step."""

MARKERS = frozenset("in out input output next new prev previous old initial init past present cur current 0 n".split())  # noqa: SIM905
"""Words that distinguish a state from its next value."""


MOST_NUMBERS = 2**26
"""Numbers of an input or a leaf in a row at most: the check steps batches of 64."""

NEXT_WORDS = frozenset({"next", "new", "present", "following"})
"""Words in the names of next values."""


def complete(spec: GraphSpec, model: onnx.ModelProto, guess: bool) -> GraphSpec:
    """Return a specification that has a role for every input, and a shape and a next value wherever one is due.

    Outputs that have no role are the outputs of a step, if the specification names none. Raises ImportFailed, which
    names the place in the specification and the remedy.
    """
    _check_tensors(spec, model)
    if guess:
        spec = _with_roles(spec, model)
    left = _left(spec, inputs_of(model))
    if left:
        raise ImportFailed(
            f"{spec.where}: input {left[0]!r} of the graph has no role: put it into [inputs], [state] or [constants]"
            + ("" if guess else ", or give --guess")
        )
    if guess and not spec.state and not any(part.carry for part in spec.inputs):
        names = ", ".join(part.tensor for part in spec.inputs)
        raise ImportFailed(
            f"{spec.where}: no state was found: no output has the shape that the next value of one of {names} would "
            "have; a state keeps its shape. Without --guess, a graph needs no state"
        )
    if not spec.inputs:
        raise ImportFailed(f"{spec.where}: [inputs] must name at least one input of the graph")
    for leaf in spec.state:
        if leaf.next is None:
            raise ImportFailed(
                f"{spec.where}: [state] {leaf.tensor}: `next`, the output with its next value, is missing"
            )
    values = inputs_of(model)
    spec = replace(
        spec,
        inputs=tuple(_with_shape(spec, "inputs", part, values, guess) for part in spec.inputs),
        state=tuple(_with_shape(spec, "state", leaf, values, guess) for leaf in spec.state),
        outputs=spec.outputs or _other_outputs(spec, model),
    )
    _check_dtypes(spec, model)
    _check_carry(spec)
    _check_sizes(spec)
    if not spec.outputs:
        raise ImportFailed(
            f"{spec.where}: no output is left beside the next values of the state: name one in [outputs]"
        )
    return spec


def axis_choices(spec: GraphSpec, model: onnx.ModelProto, fixed: Iterable[str]) -> dict[str, list[Shape]]:
    """Return, by tensor, the shapes with the batch axis at each axis that it may be, the likeliest first.

    fixed: the tensors whose shape the user gave. A tensor with a symbol for its batch has no choice either.
    """
    values, fixed = inputs_of(model), set(fixed)
    choices = {}
    for part in spec.fed:
        sizes = sizes_of(values[part.tensor])
        assert part.shape is not None
        declared = sizes is not None and all(isinstance(size, int) for size in sizes)
        axes = [axis for axis, size in enumerate(sizes or ()) if size == 1]
        if part.tensor in fixed or not declared or len(axes) < 2:
            choices[part.tensor] = [part.shape]
        else:
            bare = [1 if size == BATCH else size for size in part.shape]
            choices[part.tensor] = [(*bare[:axis], BATCH, *bare[axis + 1 :]) for axis in axes]
    return choices


def _check_tensors(spec: GraphSpec, model: onnx.ModelProto) -> None:
    """Raise ImportFailed for a tensor that the graph does not have."""
    inputs, outputs = inputs_of(model), outputs_of(model)
    named: list[tuple[str, str, Mapping[str, Any], str]] = [
        *(("inputs", part.tensor, inputs, "input") for part in spec.inputs),
        *(("constants", name, inputs, "input") for name in spec.constants),
        *(("state", leaf.tensor, inputs, "input") for leaf in spec.state),
        *((f"state] {leaf.tensor} [next", leaf.next, outputs, "output") for leaf in spec.state if leaf.next),
        *(("outputs", part.tensor, outputs, "output") for part in spec.outputs),
        *(("trace", part.tensor, outputs, "output") for part in spec.trace),
    ]
    for section, name, known, kind in named:
        if name not in known:
            raise ImportFailed(
                f"{spec.where}: [{section}]: the graph has no {kind} {name!r}; its {kind}s are {', '.join(known)}"
            )


def _left(spec: GraphSpec, inputs: Mapping[str, Any]) -> list[str]:
    """Return the inputs of the graph that have no role yet."""
    used = {part.tensor for part in spec.fed} | set(spec.constants)
    return [name for name in inputs if name not in used]


def _other_outputs(spec: GraphSpec, model: onnx.ModelProto) -> tuple[Part, ...]:
    used = {leaf.next for leaf in spec.state} | {part.tensor for part in spec.trace}
    names = [name for name in outputs_of(model) if name not in used]
    return tuple(Part(name, plain_name(name)) for name in names)


def _with_roles(spec: GraphSpec, model: onnx.ModelProto) -> GraphSpec:
    """Return the specification with a guessed role for each input that has none."""
    inputs, outputs = inputs_of(model), outputs_of(model)
    taken = {leaf.next for leaf in spec.state} | {part.tensor for part in spec.seen}
    free = [name for name in outputs if name not in taken]
    state = []
    for leaf in spec.state:
        following = leaf.next or _next_of(leaf.tensor, free, inputs, outputs, by_shape=True)
        free = [name for name in free if name != following]
        state.append(replace(leaf, next=following))
    left = _left(spec, inputs)
    pairs = _pairs(left, free, inputs, outputs, has_inputs=bool(spec.inputs))
    state += [Leaf(name, plain_name(name), next=following) for name, following in pairs.items()]
    rest = [name for name in left if name not in pairs]
    for name in rest:
        if _is_scalar(inputs[name]):
            raise ImportFailed(
                f"{spec.where}: input {name!r} of the graph is one {dtype_of(inputs[name])} for all rows, whose value "
                f"no guess can know: give it in a --spec, [constants] {name} = ..."
            )
    more = tuple(Part(name, plain_name(name)) for name in rest)
    return replace(spec, inputs=(*spec.inputs, *more), state=tuple(state))


def _pairs(
    left: Sequence[str],
    free: Sequence[str],
    inputs: Mapping[str, onnx.ValueInfoProto],
    outputs: Mapping[str, onnx.ValueInfoProto],
    has_inputs: bool,
) -> dict[str, str]:
    """Return the inputs that are states, by the evidence of names or else of shapes, and their next values."""
    pairs: dict[str, str] = {}

    def pair(names: Iterable[str], by_shape: bool) -> None:
        for name in names:
            others = [other for other in free if other not in pairs.values()]
            following = _next_of(name, others, inputs, outputs, by_shape)
            if name not in pairs and following:
                pairs[name] = following

    pair(left, by_shape=False)
    pair([name for name in left if _words(name) & STATE_WORDS], by_shape=True)
    if not pairs:
        pair(left if has_inputs else left[1:], by_shape=True)
    if not has_inputs and len(pairs) == len(left):
        first = next((name for name in pairs if not _words(name) & STATE_WORDS), None)
        if first:
            del pairs[first]
    return pairs


def _next_of(
    name: str,
    free: Sequence[str],
    inputs: Mapping[str, onnx.ValueInfoProto],
    outputs: Mapping[str, onnx.ValueInfoProto],
    by_shape: bool,
) -> str | None:
    """Return the output that is the next value of a state: of a like name, or if by_shape is set, of a like shape."""
    fitting = [other for other in free if _may_follow(inputs[name], outputs[other])]
    alike = [other for other in fitting if _stem(other) and _stem(other) == _stem(name)]
    if alike or not by_shape:
        return next(iter(alike), None)
    likely = [other for other in fitting if _words(other) & (STATE_WORDS | NEXT_WORDS)]
    return next(iter(likely or fitting), None)


def _may_follow(before: onnx.ValueInfoProto, after: onnx.ValueInfoProto) -> bool:
    """Return whether the declared types and shapes of a state and its next value agree."""
    one, other = sizes_of(before), sizes_of(after)
    if dtype_of(before) != dtype_of(after):
        return False
    if one is None or other is None:
        return True
    known = [pair for pair in zip(one, other, strict=False) if all(isinstance(size, int) for size in pair)]
    return len(one) == len(other) and all(size == same for size, same in known)


def _words(name: str) -> set[str]:
    """Return the words of a name: past_key.0, hIn and h0 have past, key, 0; h, in; h, 0."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return {word.lower() for word in re.findall(r"[A-Za-z]+|[0-9]+", spaced)}


def _stem(name: str) -> frozenset[str]:
    """Return the words of a name that a state shares with its next value."""
    words = {re.sub(r"^([hc])n$", r"\1", word) for word in _words(name)}
    return frozenset(words - MARKERS)


def _is_scalar(value: onnx.ValueInfoProto) -> bool:
    return sizes_of(value) == []


def _with_shape(
    spec: GraphSpec, section: str, part: Any, values: Mapping[str, onnx.ValueInfoProto], guess: bool
) -> Any:
    """Return a part with its shape: the given one, if it fits what is declared, or the declared one."""
    where = f"{spec.where}: [{section}] {part.tensor}"
    sizes = sizes_of(values[part.tensor])
    if part.shape is not None:
        _check_shape(where, part.shape, sizes)
        return part
    if sizes is None:
        raise ImportFailed(f'{where}: the file declares no shape: give `shape`, with "B" for the batch axis')
    return replace(part, shape=_declared_shape(where, sizes, guess))


def _declared_shape(where: str, sizes: list[int | str | None], guess: bool) -> Shape:
    """Return the shape that a file declares, with BATCH at its batch axis."""
    open_axes = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
    named = [axis for axis in open_axes if str(sizes[axis]).lower() in BATCH_NAMES]
    times = [axis for axis in open_axes if guess and str(sizes[axis]).lower() in TIME_NAMES]
    ones = [axis for axis, size in enumerate(sizes) if size == 1]
    batch = named or [axis for axis in open_axes if axis not in times] or ones
    unknown = [axis for axis in open_axes if axis not in (*times, *batch[:1])]
    if unknown:
        raise ImportFailed(
            f"{where}: the file declares the shape {_shown(sizes)}, which leaves the size of axis {unknown[0]} open: "
            'give `shape`, with "B" for the batch axis'
        )
    if len(ones) > 1 and not open_axes and not guess:
        raise ImportFailed(
            f"{where}: the file declares the shape {_shown(sizes)}, in which the batch axis may be any of "
            f'{", ".join(map(str, ones))}: give `shape`, with "B" for the batch axis, or --guess'
        )
    shape = [BATCH if axis in batch[:1] else 1 if axis in times else size for axis, size in enumerate(sizes)]
    return tuple(size for size in shape if size is not None)


def _check_shape(where: str, shape: Shape, sizes: list[int | str | None] | None) -> None:
    """Raise ImportFailed if a shape contradicts the declared one; the batch axis may be declared as 1."""
    if sizes is None:
        return
    fits = len(sizes) == len(shape) and all(
        not isinstance(declared, int) or size == declared or (size == BATCH and declared == 1)
        for size, declared in zip(shape, sizes, strict=True)
    )
    if not fits:
        raise ImportFailed(f"{where}: shape {_shown(shape)} does not fit the file's, which is {_shown(sizes)}")


def _check_dtypes(spec: GraphSpec, model: onnx.ModelProto) -> None:
    """Raise ImportFailed if a leaf and its next value are of two types."""
    inputs, outputs = inputs_of(model), outputs_of(model)
    for leaf in spec.state:
        assert leaf.next is not None
        before, after = dtype_of(inputs[leaf.tensor]), dtype_of(outputs[leaf.next])
        if before != after:
            raise ImportFailed(
                f"{spec.where}: [state] {leaf.tensor} is of {before}, but its next value {leaf.next!r} is of {after}"
            )


def _check_carry(spec: GraphSpec) -> None:
    for part in spec.inputs:
        if part.carry and part.numbers < 1:
            size = part.numbers + part.carry
            raise ImportFailed(
                f"{spec.where}: [inputs] {part.tensor}: carry must leave new numbers, so be below its {size} numbers, "
                f"got {part.carry}"
            )


def _check_sizes(spec: GraphSpec) -> None:
    for part in spec.fed:
        numbers = math.prod(part.row_shape)
        if numbers > MOST_NUMBERS:
            raise ImportFailed(
                f"{spec.where}: {part.tensor!r} has {numbers:,} numbers in a row; expected {MOST_NUMBERS:,} at most"
            )


def _shown(sizes: Iterable[int | str | None]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in sizes)}]"
