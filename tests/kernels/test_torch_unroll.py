"""Sequences by torch as captured graphs: what is captured, and what surrounds it; the graphs themselves need a GPU."""

import copy

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernels.support import NoKernel
from kernels.torch_unroll import MOST_STEPS, CapturedUnroll, TorchUnroll, WholeSequence, rounded_steps, without_trace
from kernels.unroll import unroll_by
from models.registry import build
from tests.models.catalogue import CATALOGUE, make, random_inputs
from training.distributed import ALONE
from training.optimizers import OptimizerConfig
from training.tasks import build_task, join
from training.updates import TorchUpdates

ON_CUDA = [pytest.param(path, marks=pytest.mark.cuda) for path in ("captured", "compiled") if torch.cuda.is_available()]
COMPILERS = "ignore:The .grad attribute of a Tensor", "ignore:TensorFloat32 tensor cores"
"""Warnings of torch's compiler: it looks at all tensors, and would have products rounded."""

ON_THE_HOST = {"aten::item", "aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::masked_select"}
"""Operations whose result, or whose shape, the host must wait for."""


class Capture:
    """Keeps the shapes for which a module was to be captured, and returns the module as it is."""

    def __init__(self):
        self.shapes = []

    def __call__(self, module, samples):
        self.shapes.append([tuple(sample.shape) for sample in samples])
        return module


def in_training(name):
    return make(name).train()


def gradients(model, unroll, inputs, lengths=None):
    """Return the outputs of a sequence and the gradients of weights of a sum over them."""
    outputs, _ = unroll(inputs, None, lengths)
    model.zero_grad()
    shares = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1), dtype=outputs.dtype)
    (outputs * shares.to(outputs.device)).sum().backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {"outputs": outputs.detach(), **copy.deepcopy(found)}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def captured(name, device):
    """Return a call that computes what is captured of a model, and its gradients."""
    model = in_training(name)
    inputs, lengths = random_inputs(model, 2, 2).to(device), torch.ones(2, dtype=torch.long, device=device)
    whole = WholeSequence(model.to(device), without_trace(model))
    return lambda: whole(inputs, lengths).sum().backward()


def operations_of(call):
    """Return the names of the operations of a call and its gradients, also of those within others."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        call()
    return {event.key for event in profiled.key_averages()}


@pytest.mark.parametrize("name", CATALOGUE)
def test_captured_sequence_reads_no_number_on_the_host(name):
    operations = operations_of(captured(name, "cpu"))
    assert any("Backward" in operation for operation in operations)
    assert not operations & ON_THE_HOST


def test_gradient_that_a_capture_cannot_have_is_found():
    factors = torch.rand(2, 3, requires_grad=True)
    assert operations_of(lambda: factors.prod(1).sum().backward()) & ON_THE_HOST


class Made(TorchDispatchMode):
    """Keeps the devices of all tensors that are made."""

    def __init__(self):
        super().__init__()
        self.devices = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.devices |= {tensor.device.type for tensor in tree_leaves(result) if isinstance(tensor, torch.Tensor)}
        return result


@pytest.mark.parametrize("name", CATALOGUE)
def test_captured_sequence_makes_no_tensor_on_the_host(name):
    call = captured(name, "meta")
    with Made() as made:
        call()
    assert made.devices == {"meta"}


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 0, 3])])
@pytest.mark.parametrize("name", ["dnc-improved", "dnc-sparse-links", "ntm", "dnc-tokens"])
def test_steps_that_follow_a_sequence_change_nothing(name, lengths):
    model, capture = in_training(name), Capture()
    inputs, found = random_inputs(model, 9, 3), []
    for unroll in (TorchUnroll(model), CapturedUnroll(model, capture=capture)):
        torch.manual_seed(0)  # of dropout
        found.append(gradients(model, unroll, inputs, lengths))
    assert_equal(*found)
    assert capture.shapes[0][0][:2] == (10, 3)


def test_sequences_of_like_lengths_share_a_capture():
    model, capture = in_training("ntm"), Capture()
    unroll = CapturedUnroll(model, capture=capture)
    for steps in (17, 20, 19, 21):
        gradients(model, unroll, random_inputs(model, steps, 2))
    gradients(model, unroll, random_inputs(model, 18, 2), torch.tensor([18, 4]))
    assert capture.shapes == [[(20, 2, 3)], [(24, 2, 3)], [(20, 2, 3), (2,)]]


def test_rounded_steps_are_few_and_at_most_a_quarter_more():
    rounded = [rounded_steps(steps) for steps in range(1, MOST_STEPS + 1)]
    assert all(steps <= some <= 1.25 * steps for steps, some in enumerate(rounded, 1))
    assert len(set(rounded)) == 8 + 4 * 6
    assert max(rounded) == MOST_STEPS


def test_weight_that_is_frozen_later_is_captured_anew():
    model, capture = in_training("ntm"), Capture()
    unroll, inputs = CapturedUnroll(model, capture=capture), random_inputs(model, 4, 2)
    gradients(model, unroll, inputs)
    model.output.weight.requires_grad_(False)
    assert "output.weight" not in gradients(model, unroll, inputs)
    assert len(capture.shapes) == 2


def test_gradients_of_a_sequence_that_is_overwritten_are_refused():
    model = in_training("ntm")
    unroll = CapturedUnroll(model, capture=Capture())
    (first, _), (last, _) = (unroll(random_inputs(model, steps, 2)) for steps in (4, 7))
    with pytest.raises(RuntimeError, match="goes backwards once, before the next one begins"):
        first.sum().backward()
    last.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="goes backwards once, before the next one begins"):
        last.sum().backward()


class Overwriting(torch.autograd.Function):
    """A factor whose gradient lies in one array at every call, as that of a graph does."""

    array = torch.zeros(())

    @staticmethod
    def forward(ctx, factor, values):
        ctx.save_for_backward(values)
        return factor * values

    @staticmethod
    def backward(ctx, gradient):
        Overwriting.array.copy_((gradient * ctx.saved_tensors[0]).sum())
        return Overwriting.array.detach(), None


def test_gradients_of_several_sequences_are_added_up():
    class Factor(torch.nn.Module):
        def forward(self, inputs):
            return Overwriting.apply(model.factor, inputs)

    model = in_training("rnn-gru")
    model.factor = torch.nn.Parameter(torch.ones(()))
    unroll = CapturedUnroll(model, capture=lambda _, __: Factor())
    for value in (1.0, 10.0):
        outputs, _ = unroll(torch.full((1, 1, 1), value))
        outputs.sum().backward()
    assert model.factor.grad == 11


def without_gradients(unroll, inputs):
    with torch.no_grad():
        return unroll(inputs)


def frozen(unroll, inputs):
    unroll.model.requires_grad_(False)
    return unroll(inputs)


def in_eval_mode(unroll, inputs):
    unroll.model.eval()
    return unroll(inputs)


SITUATIONS = {
    "without gradients": without_gradients,
    "in eval mode": in_eval_mode,
    "all weights frozen": frozen,
    "gradients of inputs": lambda unroll, inputs: unroll(inputs.requires_grad_()),
    "from a state": lambda unroll, inputs: unroll(inputs, unroll.model.initial_state(2)),
    "too long": lambda unroll, inputs: unroll(inputs.repeat(MOST_STEPS, 1, 1)),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_sequence_that_is_not_captured_returns_its_last_state(situation):
    capture = Capture()
    unroll = CapturedUnroll(in_training("rnn-gru"), capture=capture)
    _, state = SITUATIONS[situation](unroll, random_inputs(unroll.model, 2, 2))
    assert state is not None
    assert not capture.shapes


def test_inputs_of_another_size_are_refused_as_by_torch():
    model = in_training("ntm")
    with pytest.raises(ValueError, match="inputs must be of shape"):
        CapturedUnroll(model, capture=Capture())(torch.zeros(2, 3, 1))


def updated(unroll_of):
    """Return the figures and the weights of updates on batches of mixed lengths."""
    torch.manual_seed(3)
    task = build_task({"name": "copy", "length": [1, 6], "bits": 3})
    controller = {"kind": "lstm", "hidden_size": 8}
    model = build("ntm", {**task.model_values, "memory_size": 8, "word_size": 4, "controller": controller})
    updates = TorchUpdates(model, unroll_of(model), OptimizerConfig(), ALONE)
    generator = torch.Generator().manual_seed(0)
    figures = []
    for _ in range(4):
        episode = join(task.sample(generator, 1) for _ in range(3))
        figures.append(updates.update(task, ALONE.part(episode), 0.01))
    return figures, dict(model.named_parameters())


def test_updates_are_those_of_torch():
    theirs, their_weights = updated(TorchUnroll)
    ours, our_weights = updated(lambda model: CapturedUnroll(model, capture=Capture()))
    assert ours == theirs
    assert_equal(our_weights, their_weights)


@pytest.mark.parametrize("path", ["captured", "compiled"])
def test_model_on_a_cpu_cannot_be_captured(path):
    with pytest.raises(NoKernel, match="it is on cpu, and CUDA graphs are for GPUs; torch trains it"):
        unroll_by(path, make("ntm"))


@pytest.mark.slow
@pytest.mark.filterwarnings(*COMPILERS)
@pytest.mark.parametrize("name", ["dnc-improved", "dnc", "ntm", "ntm-tokens", "rnn-gru"])
def test_compiled_steps_are_whole_graphs_with_the_same_gradients(name, monkeypatch):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, **how: compiled(step, backend="aot_eager", **how))
    model = in_training(name).double()
    inputs = random_inputs(model, 3, 2).double()
    torch.manual_seed(0)
    expected = gradients(model, TorchUnroll(model), inputs)
    torch.manual_seed(0)
    found = gradients(model, CapturedUnroll(model, compiled=True, capture=Capture()), inputs)
    for part, tensor in expected.items():
        torch.testing.assert_close(found[part], tensor, msg=part)


@pytest.mark.filterwarnings(*COMPILERS)
@pytest.mark.parametrize("path", ["not captured", *ON_CUDA])
@pytest.mark.parametrize("name", ["dnc", "dnc-sparse-links", "ntm", "rnn-gru"])
def test_graphs_have_the_gradients_of_the_cpu(name, path):
    here, there = in_training(name), in_training(name).to("cpu" if path == "not captured" else "cuda")
    there.load_state_dict(here.state_dict())
    unroll = CapturedUnroll(there, capture=Capture()) if path == "not captured" else unroll_by(path, there)
    for steps, lengths in ((9, None), (7, torch.tensor([7, 0, 3])), (9, None)):
        inputs = random_inputs(here, steps, 3)
        expected = gradients(here, TorchUnroll(here), inputs, lengths)
        found = gradients(there, unroll, inputs.to(next(there.parameters()).device), lengths)
        for part, tensor in expected.items():
            torch.testing.assert_close(found[part].cpu(), tensor, rtol=1e-3, atol=1e-5, msg=part)
