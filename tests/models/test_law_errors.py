"""Classes of a user's own that break a law of the contract are found out, each by the law that it breaks."""

import inspect
import re

import pytest
import torch

from models import laws
from models.config import ConfigError
from tests.models import broken

BROKEN = {
    "Weightless": "has weights to train: it has none: make them parameters, or layers, in __init__",
    "PlainTuple": "keeps the structure of a state: the state must be a NamedTuple, got a tuple",
    "NumberInState": "the state's h must be a tensor, a NamedTuple or None, got a float",
    "BatchSecond": "has the shapes and the dtype of its weights: state leaf 'h' of initial_state(1) must be "
    "torch.float32 [1, 1] on cpu, got torch.float32 [4, 1] on cpu",
    "EmptyLeaf": "keeps something in each leaf: state leaf 'h' is torch.float32 [1, 0] on cpu",
    "WholeNumbers": "state leaf 'h' of initial_state(1) must be torch.float32 [1, 4] on cpu, got torch.int64 [1, 4] on "
    "cpu: make it by new_zeros of a weight, or the like",
    "FixedPrecision": "must be torch.float64 [1, 4] on cpu, got torch.float32 [1, 4] on cpu: make it by new_zeros",
    "TwoResults": "returns what a step returns: _step must return outputs, next state, trace, got 2 values",
    "FlatOutputs": "outputs must be torch.float64 [3, 2] on cpu, got torch.float64 [3] on cpu",
    "OtherStructure": "the next state must be a LeakyState, as before the step, got a OtherState",
    "GrowingState": "leaf 'h' of the next state must be torch.float64 [3, 4] on cpu, got torch.float64 [3, 8] on cpu",
    "ListTrace": "returns what a step returns: the trace must be a dictionary, got a list",
    "MeanTrace": "trace 'mean' must be torch.float64 [3] on cpu, got torch.float64 [4] on cpu",
    "DrawnTrace": "has traces that can be drawn: trace 'read_weights' must be [B, heads, N], got torch.float64 [3, 4]",
    "Branching": "can be traced: FILE: a step calls __bool__ of a tensor: choose by torch.where, not by `if`, and",
    "LeftBehind": "can be moved: self.ones is a plain tensor, which .to() leaves behind: make it a parameter, or a",
    "Overflowing": "is finite: the output is not after 4 steps: keep its numbers bounded",
    "InPlaceState": "leaves its arguments as they were: a step writes to h in place: return a new tensor",
    "InPlaceInputs": "leaves its arguments as they were: a step writes to inputs in place: return a new tensor",
    "Noisy": "repeats itself: the output is another the second time, by up to 0.00",
    "Counting": "leaves its weights as they were: a step changes steps: put it into the state",
    "Remembering": "remembers in its state only: the output is another the second time, by up to ",
    "Interleaving": "the steps of another sequence between its own changed it; keep all that is remembered in",
    "DrawnStart": "begins every row alike: h of initial_state(3) is not 3 copies of that of initial_state(1)",
    "BatchMean": "keeps rows apart: the output of a row depends on the rows beside it in a batch, by up to ",
    "LeakOfExtremes": "keeps rows apart: the output of a row depends on the inputs of the rows beside it, by up to ",
    "PlaceInBatch": "keeps rows apart: the output of a row depends on ",
    "AnyMemorySize": "without a memory, initial_state(1, memory_size=2) must raise ConfigError",
    "MemoryElsewhere": "its memory must be the state leaf 'memory', [B, 4, W], got none",
    "FixedMemory": "has a memory of any size: initial_state(2, 3) has a memory of [2, 2, 4]",
    "ShrinkingMemory": "a step of a state {'memory': [2, 3, 4]} must return those shapes, got {'memory': [2, 2, 4]}",
    "Detached": "can be trained: its outputs have no gradient: leave out detach, no_grad and item",
    "Unused": "can be trained: no output of 4 steps depends on spare.weight: use it, or leave it out",
    "InfiniteGradient": "can be trained: the gradient of leaks is not finite over 4 steps",
}


def found(model):
    """Return the message of the law that a model breaks."""
    with pytest.raises(laws.LawError) as error:
        laws.check_laws(model)
    return str(error.value)


@pytest.mark.parametrize("model", [broken.Leaky, broken.Dropping, broken.Slots])
def test_model_that_keeps_every_law_is_accepted(model):
    laws.check_laws(model())


@pytest.mark.parametrize("name", BROKEN)
def test_broken_law_is_named_with_expected_and_found(name):
    message = found(getattr(broken, name)())
    assert message.startswith(f"{name} breaks the law that a model ")
    assert BROKEN[name] in re.sub(r"/\S+broken\.py, line \d+", "FILE", message)


def test_every_law_and_every_broken_class_is_in_the_list():
    classes = {
        name for name, value in vars(broken).items() if inspect.isclass(value) and issubclass(value, broken.Leaky)
    }
    assert classes == {*BROKEN, "Leaky", "Dropping", "Slots", "Failing"}
    source = inspect.getsource(laws)
    named = set(re.findall(r"_broken\(\s*model,\s*\"([^\"]+)\"", source)) | set(
        re.findall(r"law.* = \"([a-z ]+)\"", source)
    )
    assert [law for law in named if not any(law in message for message in BROKEN.values())] == []


def test_fault_of_a_step_is_reported_with_its_line():
    lines, first = inspect.getsourcelines(broken.Failing.mixed)
    line = first + len(lines) - 1
    assert re.match(
        rf"Failing cannot be stepped: \S+broken\.py, line {line}: RuntimeError: .*shapes", found(broken.Failing())
    )


def test_check_leaves_a_model_in_training_as_it_was():
    model = broken.Dropping().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    laws.check_laws(model)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_check_leaves_the_next_random_numbers_as_they_were():
    model = broken.Noisy()
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    found(model)
    assert torch.equal(torch.rand(3), drawn)


def test_law_error_is_an_error_of_configuration():
    assert issubclass(laws.LawError, ConfigError)
