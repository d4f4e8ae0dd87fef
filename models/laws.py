"""The laws of the contract, run on a model: what `models.contract.MemoryModel` promises and no type can say.

    initial_state ----> step ----> step ----> ...      outputs, state and trace have their form, and are finite
         |               |           |
    rows are the same    |           |                 of a row, whatever the other rows are
                         |           |                 and of a sequence, whatever the model did before
                    arguments are left as they were

`check_laws` runs them on a class of a user's own when a model is built; tests run them on every model of Engram.
"""

import copy
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from models.config import ConfigError
from models.contract import MemoryModel, Trace, evaluating, unroll
from models.faults import line_of, message_of
from models.state import flatten, map_leaves

Model = MemoryModel[Any]

Result = tuple[Tensor, Any, Trace]
"""Outputs, state and trace: of a step, or of a sequence, with the outputs of all its steps and the last trace."""

STEPS = 4
"""Steps of a sequence of a check, and of the life of a state before it."""

EXTREME = 1e30
"""The inputs of the rows beside another: if any of it leaks, no result can be as it was."""

AXES_DRAWN = {"read_weights": 2, "write_weights": 2, "allocation_weights": 2, "usage": 1}
"""Traces that figures and the page draw, and the number of their axes after the batch: [heads, N], or [N]."""


class LawError(ConfigError):
    """A model that breaks a law of the contract; the message names both, and what is wrong."""


def check_laws(model: Model) -> None:
    """Run every law on a model. Raises LawError for the first that it breaks.

    All but the form of a state are checked on a copy in float64: in float32, a model that sorts, or looks up sharply,
    may multiply rounding until rows seem to depend on each other. Neither the model, nor the random numbers that are
    drawn next, depend on whether this was called.
    """
    with evaluating(model), torch.random.fork_rng(devices=[]), _in_words(model):
        state_has_its_form(model)
        exact = copy.deepcopy(model).double()
        for law in LAWS:
            law(exact)


@contextmanager
def _in_words(model: Model) -> Iterator[None]:
    """Turn an error that the class raises into a LawError with the line of its file."""
    try:
        yield
    except LawError:
        raise
    except Exception as error:
        where = f"{type(model).__name__} cannot be stepped: {_place(model, error)}"
        raise LawError(f"{where}: {message_of(error)}") from error


# The laws, in the order in which they are checked


@torch.no_grad()
def state_has_its_form(model: Model) -> None:
    """A state is a NamedTuple of tensors, NamedTuples and None; a tensor has the batch first and the weights' dtype."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise _broken(model, "has weights to train", "it has none: make them parameters, or layers, in __init__")
    for batch in (1, 3):
        _require_parts(model, model.initial_state(batch), "state")
        for name, leaf in flatten(model.initial_state(batch)).items():
            _require_tensor(model, f"state leaf {name!r} of initial_state({batch})", leaf, [batch, *leaf.shape[1:]])
            if 0 in leaf.shape:
                raise _broken(model, "keeps something in each leaf", f"state leaf {name!r} is {_described(leaf)}")


@torch.no_grad()
def step_keeps_the_form(model: Model) -> None:
    """A step returns outputs [B, output_size], a state of the structure, shapes and dtype of the last, and a trace."""
    state = model.initial_state(3)
    for inputs in _inputs(model, STEPS, 3):
        outputs, following, trace = _stepped(model, inputs, state)
        _require_tensor(model, "outputs", outputs, [3, model.output_size])
        _require_parts(model, following, "next state", like=state)
        for name, leaf in flatten(following).items():
            _require_tensor(model, f"leaf {name!r} of the next state", leaf, list(flatten(state)[name].shape))
        _require_trace(model, trace)
        state = following


@torch.no_grad()
def results_are_finite(model: Model) -> None:
    """No output, state or trace is infinite or NaN from the first state on, for inputs from a normal distribution."""
    outputs, state, trace = _lived(model, _inputs(model, STEPS, 3))
    for name, tensor in _named(outputs, state, trace).items():
        if not tensor.isfinite().all():
            raise _broken(model, "is finite", f"{name} is not after {STEPS} steps: keep its numbers bounded")


@torch.no_grad()
def arguments_are_left_as_they_were(model: Model) -> None:
    """A step writes to neither its inputs nor its state."""
    inputs, state = _inputs(model, STEPS, 3), _lived_in(model, 3)
    before = {"inputs": inputs[0].clone()} | {name: leaf.clone() for name, leaf in flatten(state).items()}
    model.step(inputs[0], state)
    for name, tensor in {"inputs": inputs[0], **flatten(state)}.items():
        if not torch.equal(tensor, before[name]):
            raise _broken(
                model, "leaves its arguments as they were", f"a step writes to {name} in place: return a new tensor"
            )


@torch.no_grad()
def same_step_gives_the_same_bits(model: Model) -> None:
    """In eval mode, a step depends on nothing but its arguments: no random number, no count of steps."""
    inputs, state = _inputs(model, 1, 3)[0], _lived_in(model, 3)
    remedy = "draw nothing in eval mode (if self.training: ...), and keep nothing of a step on the module"
    _require_same(model, "repeats itself", model.step(inputs, state), model.step(inputs, state), remedy)


@torch.no_grad()
def weights_are_left_as_they_were(model: Model) -> None:
    """In eval mode, a step changes no weight and no buffer."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _lived(model, _inputs(model, STEPS, 3))
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor, before[name]):
            raise _broken(model, "leaves its weights as they were", f"a step changes {name}: put it into the state")


@torch.no_grad()
def first_state_is_the_same_for_every_row(model: Model) -> None:
    """initial_state(B) is B copies of initial_state(1), whenever it is called."""
    one = flatten(model.initial_state(1))
    for name, leaf in flatten(model.initial_state(3)).items():
        if not torch.equal(leaf, one[name].expand_as(leaf)):
            raise _broken(
                model,
                "begins every row alike",
                f"{name} of initial_state(3) is not 3 copies of that of initial_state(1): what is drawn for a first "
                "state is drawn once, in __init__, and kept as a parameter or a buffer",
            )


@torch.no_grad()
def nothing_is_remembered_outside_the_state(model: Model) -> None:
    """A sequence gives the same bits after another one, and between the steps of another one."""
    sequences = [_inputs(model, STEPS, 2, seed) for seed in (0, 1)]
    first, other, again = (_lived(model, sequences[which]) for which in (0, 1, 0))
    law, remedy = "remembers in its state only", "keep all that is remembered in the state, nothing on the module"
    _require_same(model, law, first, again, f"a sequence before it changed it; {remedy}")
    for alone, mixed in zip((first, other), _lived_in_turns(model, sequences), strict=True):
        _require_same(model, law, alone, mixed, f"the steps of another sequence between its own changed it; {remedy}")


@torch.no_grad()
def rows_do_not_see_each_other(model: Model) -> None:
    """A row gives the same, up to rounding, alone, at another place, and beside rows with extreme inputs."""
    inputs, order = _inputs(model, STEPS, 4), [2, 0, 3, 1]
    together = _lived(model, inputs)
    moved = _lived(model, inputs[:, order])
    extreme = inputs.clone()
    extreme[:, 1:] = inputs[:, 1:].flip(0) if model.embedding else EXTREME
    beside = _lived(model, extreme)
    for row in range(4):
        alone = _lived(model, inputs[:, [row]])
        _require_close(model, _rows(alone, [0]), _rows(together, [row]), "the rows beside it in a batch")
        _require_close(model, _rows(together, [row]), _rows(moved, [order.index(row)]), "its place in the batch")
    _require_close(model, _rows(together, [0]), _rows(beside, [0]), "the inputs of the rows beside it")


@torch.no_grad()
def memory_has_any_size(model: Model) -> None:
    """A model with a memory steps states of any memory_size; one without a memory refuses to be given a size."""
    if model.memory_size is None:
        _require_refusal(model)
        return
    here, larger = flatten(model.initial_state(2)), model.initial_state(2, model.memory_size + 1)
    law, found = "has a memory of any size", {name: list(leaf.shape) for name, leaf in flatten(larger).items()}
    memory = here.get("memory")
    if memory is None or memory.dim() != 3 or memory.shape[1] != model.memory_size:
        got = "none" if memory is None else _described(memory)
        raise _broken(model, law, f"its memory must be the state leaf 'memory', [B, {model.memory_size}, W], got {got}")
    if found["memory"][1] != model.memory_size + 1:
        raise _broken(model, law, f"initial_state(2, {model.memory_size + 1}) has a memory of {found['memory']}")
    _, following, _ = model.step(_inputs(model, 1, 2)[0], larger)
    shapes = {name: list(leaf.shape) for name, leaf in flatten(following).items()}
    if shapes != found:
        raise _broken(model, law, f"a step of a state {found} must return those shapes, got {shapes}")


@torch.enable_grad()
def gradients_reach_every_weight(model: Model) -> None:
    """The outputs of some steps have a finite gradient in every weight that is to be trained."""
    outputs, _, _ = unroll(model, _inputs(model, STEPS, 3), model.initial_state(3))
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    law = "can be trained"
    if not outputs.requires_grad:
        raise _broken(model, law, "its outputs have no gradient: leave out detach, no_grad and item")
    gradients = torch.autograd.grad(outputs.square().sum(), list(weights.values()), allow_unused=True)
    for name, gradient in zip(weights, gradients, strict=True):
        if gradient is None:
            raise _broken(model, law, f"no output of {STEPS} steps depends on {name}: use it, or leave it out")
        if not gradient.isfinite().all():
            raise _broken(model, law, f"the gradient of {name} is not finite over {STEPS} steps")


def constants_are_buffers(model: Model) -> None:
    """No module has a plain tensor as an attribute: it would stay behind when the model is moved or saved."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                raise _broken(
                    model,
                    "can be moved",
                    f"self.{path + '.' if path else ''}{name} is a plain tensor, which .to() leaves behind: make it a "
                    "parameter, or a buffer by register_buffer",
                )


@torch.no_grad()
def step_needs_no_values(model: Model) -> None:
    """A step reads no value of a tensor into Python: so it can be traced for export."""
    inputs, state = _inputs(model, 1, 3)[0], model.initial_state(3)
    try:
        with _NoValues():
            model.step(inputs, state)
    except _ValueReadError as error:
        remedy = "choose by torch.where, not by `if`, and leave out item and tolist"
        raise _broken(model, "can be traced", f"{_place(model, error)}: {error}: {remedy}") from error


LAWS: Sequence[Callable[[Model], None]] = (
    state_has_its_form,
    step_keeps_the_form,
    results_are_finite,
    arguments_are_left_as_they_were,
    same_step_gives_the_same_bits,
    weights_are_left_as_they_were,
    first_state_is_the_same_for_every_row,
    nothing_is_remembered_outside_the_state,
    rows_do_not_see_each_other,
    memory_has_any_size,
    gradients_reach_every_weight,
    constants_are_buffers,
    step_needs_no_values,
)


class _ValueReadError(Exception):
    """A value of a tensor was read into Python, as `if tensor:` does."""


class _NoValues(TorchFunctionMode):
    """Raise _ValueReadError for a call that reads a value of a tensor into Python."""

    calls = (
        Tensor.__bool__,
        Tensor.__float__,
        Tensor.__int__,
        Tensor.__index__,
        Tensor.item,
        Tensor.tolist,
        Tensor.numpy,
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.calls:
            raise _ValueReadError(f"a step calls {func.__name__} of a tensor")
        return func(*args, **(kwargs or {}))


# Sequences to check by


def _inputs(model: Model, steps: int, batch: int, seed: int = 0) -> Tensor:
    """Return normal inputs, or tokens, in the dtype of the weights: [T, B, I]."""
    generator = torch.Generator().manual_seed(seed)
    like = next(model.parameters())
    if model.embedding:
        tokens = torch.randint(model.embedding.vocabulary_size, (steps, batch, 1), generator=generator)
        return tokens.to(like)
    return torch.randn(steps, batch, model.input_size, generator=generator).to(like)


def _lived_in(model: Model, batch: int) -> Any:
    """Return the state after a few steps."""
    return _lived(model, _inputs(model, STEPS, batch, seed=2))[1]


def _lived(model: Model, inputs: Tensor) -> Result:
    """Return the outputs of a whole sequence, [T, B, I] -> [B, T, O], and its last state and trace."""
    return _lived_in_turns(model, [inputs])[0]


def _lived_in_turns(model: Model, sequences: Sequence[Tensor]) -> list[Result]:
    """Return what `_lived` does, of several sequences of which every next step is that of the next one."""
    states = [model.initial_state(inputs.shape[1]) for inputs in sequences]
    outputs: list[list[Tensor]] = [[] for _ in sequences]
    traces: list[Trace] = [{} for _ in sequences]
    for step, which in itertools.product(range(STEPS), range(len(sequences))):
        step_outputs, states[which], traces[which] = model.step(sequences[which][step], states[which])
        outputs[which].append(step_outputs)
    return [(torch.stack(each, 1), state, trace) for each, state, trace in zip(outputs, states, traces, strict=True)]


def _stepped(model: Model, inputs: Tensor, state: Any) -> Result:
    """Take a step. Raises LawError unless it returns three values."""
    result: Any = model.step(inputs, state)
    if not isinstance(result, tuple) or len(result) != 3:
        got = f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise _broken(model, "returns what a step returns", f"_step must return outputs, next state, trace, got {got}")
    return result


def _rows(result: Result, rows: list[int]) -> Result:
    """Return some rows of the result of a step."""
    outputs, state, trace = result
    return (
        outputs[rows],
        map_leaves(lambda leaf: leaf[rows], state),
        {name: tensor[rows] for name, tensor in trace.items()},
    )


def _named(outputs: Tensor, state: Any, trace: Trace) -> dict[str, Tensor]:
    """Return the tensors of the result of a step, by names for a message."""
    leaves = {f"state leaf {name!r}": leaf for name, leaf in flatten(state).items()}
    return {"the output": outputs} | leaves | {f"trace {name!r}": tensor for name, tensor in trace.items()}


# Expectations


def _require_parts(model: Model, state: Any, name: str, like: Any = None) -> None:
    """Raise LawError unless a state is a NamedTuple of tensors, NamedTuples and None, of the types of `like`."""
    expected = "a NamedTuple" if like is None else f"a {type(like).__name__}, as before the step"
    is_named = isinstance(state, tuple) and getattr(state, "_fields", None) is not None
    if not is_named or (like is not None and type(state) is not type(like)):
        raise _broken(
            model, "keeps the structure of a state", f"the {name} must be {expected}, got {_described(state)}"
        )
    for number, (field, part) in enumerate(zip(state._fields, state, strict=True)):
        before = None if like is None else like[number]
        if isinstance(part, tuple) or isinstance(before, tuple):
            _require_parts(model, part, f"{name}'s {field}", before)
        elif not isinstance(part, Tensor | None) or (like is not None and (part is None) != (before is None)):
            wanted = "a tensor, a NamedTuple or None" if like is None else f"{_described(before)}, as before the step"
            raise _broken(
                model,
                "keeps the structure of a state",
                f"the {name}'s {field} must be {wanted}, got {_described(part)}",
            )


def _require_tensor(model: Model, name: str, tensor: Any, shape: list[int]) -> None:
    """Raise LawError unless `tensor` has this shape, and the dtype and device of the weights."""
    weight = next(model.parameters())
    law, expected = "has the shapes and the dtype of its weights", f"{weight.dtype} {shape} on {weight.device}"
    if not isinstance(tensor, Tensor) or list(tensor.shape) != shape:
        raise _broken(model, law, f"{name} must be {expected}, got {_described(tensor)}")
    if (tensor.dtype, tensor.device) != (weight.dtype, weight.device):
        raise _broken(
            model,
            law,
            f"{name} must be {expected}, got {_described(tensor)}: make it by new_zeros of a weight, or the like",
        )


def _require_trace(model: Model, trace: Any) -> None:
    """Raise LawError unless a trace is a dictionary of tensors with the batch first, [3, ...]."""
    if not isinstance(trace, dict):
        raise _broken(model, "returns what a step returns", f"the trace must be a dictionary, got {_described(trace)}")
    for name, values in trace.items():
        shape = list(values.shape[1:]) if isinstance(values, Tensor) else []
        _require_tensor(model, f"trace {name!r}", values, [3, *shape])
        if len(shape) != AXES_DRAWN.get(name, len(shape)):
            axes = "[B, heads, N]" if AXES_DRAWN[name] == 2 else "[B, N]"
            raise _broken(
                model,
                "has traces that can be drawn",
                f"trace {name!r} must be {axes}, got {_described(values)}: "
                "figures and the page draw traces of this name; give it another",
            )


def _require_same(model: Model, law: str, expected: Any, actual: Any, remedy: str) -> None:
    """Raise LawError unless two results of a step have the same bits."""
    found = _named(*actual)
    for name, tensor in _named(*expected).items():
        if not torch.equal(tensor, found[name]):
            largest = (tensor - found[name]).abs().max().item()
            raise _broken(model, law, f"{name} is another the second time, by up to {largest:.2g}: {remedy}")


def _require_close(model: Model, expected: Any, actual: Any, what: str) -> None:
    """Raise LawError unless two results of a step are equal up to rounding."""
    found = _named(*actual)
    for name, tensor in _named(*expected).items():
        tolerance = torch.finfo(tensor.dtype).eps ** 0.5 * max(1.0, tensor.abs().max().item())
        largest = (tensor - found[name]).abs().max().item()
        if not largest <= tolerance:  # NaN is not
            raise _broken(
                model,
                "keeps rows apart",
                f"{name} of a row depends on {what}, by up to {largest:.2g}: compute each row by itself, along the "
                "axes after the batch",
            )


def _require_refusal(model: Model) -> None:
    """Raise LawError unless the first state of another memory size is refused by a ConfigError."""
    try:
        model.initial_state(1, 2)
    except ConfigError:
        return
    raise _broken(
        model,
        "has a memory of any size",
        "without a memory, initial_state(1, memory_size=2) must raise ConfigError, but it returns a state: define the "
        "property memory_size, or begin with: if memory_size is not None: raise ConfigError(...)",
    )


def _place(model: Model, error: Exception) -> str:
    """Return the file of a model's class, and its line that raised an error."""
    module = sys.modules.get(type(model).__module__)
    file = str(getattr(module, "__file__", type(model).__module__))
    return f"{file}{line_of(error, file)}"


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)} on {value.device}"
    return "None" if value is None else f"a {type(value).__name__}"


def _broken(model: Model, law: str, found: str) -> LawError:
    return LawError(f"{type(model).__name__} breaks the law that a model {law}: {found}")
