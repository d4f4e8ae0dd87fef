"""The kernels for GPUs against the torch models, one step from the same state; interpreted where there is no GPU."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is for Linux")

from benchmarks.rounded_state import rounded
from kernels.gpu import batch, heads
from kernels.gpu.batch import MOST_STEPS, lengths
from kernels.gpu.src import layers
from kernels.gpu.step import GpuStep
from kernels.gpu.support import LARGE, not_on_gpu
from kernels.gpu.transfer import memory_errors
from kernels.support import NoKernel
from models.dnc import DNCConfig
from models.ntm import NTMConfig
from models.registry import config_values
from models.state import flatten
from tests.kernels.test_step import assert_steps_near, drawn_gates, rows_of
from tests.models.catalogue import CATALOGUE, KINDS, lived_in_state, make_from, random_inputs
from tests.models.drawn import any_model

pytestmark = pytest.mark.slow

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
COVERED = [name for name, config in CATALOGUE.items() if not_on_gpu(KINDS[type(config)], config_values(config)) is None]
WITH_HEADS = [name for name in COVERED if KINDS[type(CATALOGUE[name])] != "rnn"]


def gpu_step(model, rooms, memory_size=None, large="float32"):
    kind, values = KINDS[type(model.config)], config_values(model.config)
    size = model.memory_size if memory_size is None else memory_size
    step = GpuStep(kind, values, model.eval().to(DEVICE), size, large=large)
    step.grow(rooms)
    return step


def test_most_of_what_the_cpu_kernels_cover_is_covered():
    assert len(COVERED) > 25
    assert {KINDS[type(CATALOGUE[name])] for name in COVERED} == {"dnc", "ntm", "rnn"}


@pytest.mark.parametrize("name", COVERED)
def test_kernels_take_the_steps_of_the_model(name):
    model = make_from(CATALOGUE[name])
    assert_steps_near(model, lived_in_state(model, 2), random_inputs(model, 2, 2), make_step=gpu_step)


@pytest.mark.parametrize("name", ["dnc", "dnc-2-read-3-write-heads", "ntm-2-read-2-write-heads"])
def test_first_steps_of_a_fresh_state_are_the_models(name):
    model = make_from(CATALOGUE[name])
    assert_steps_near(model, model.initial_state(3), random_inputs(model, 3, 3), make_step=gpu_step)


@pytest.mark.parametrize("name", WITH_HEADS)
def test_kernels_force_the_gates_of_the_model(name):
    model = make_from(CATALOGUE[name])
    gates = drawn_gates(model, seed=len(name))
    assert_steps_near(model, lived_in_state(model, 2), random_inputs(model, 1, 2), gates, make_step=gpu_step)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(any_model(largest_memory=40), st.integers(0, 2**16))
def test_kernels_take_the_steps_of_any_model_or_refuse_it(config, seed):
    torch.manual_seed(seed)
    model = make_from(config, spread=0.3)
    if not_on_gpu(KINDS[type(config)], config_values(config)):
        with pytest.raises(NoKernel, match=r"no GPU kernel for this model: its .*; torch computes it"):
            gpu_step(model, 1)
    else:
        assert_steps_near(model, lived_in_state(model, 2), random_inputs(model, 1, 2), make_step=gpu_step)


@pytest.mark.parametrize("memory_size", [1, 40])
@pytest.mark.parametrize("config", [DNCConfig(3, 2, 6, 4, look_up_scaling=True), NTMConfig(3, 2, 6, 4)])
def test_memory_of_another_size_is_stepped(config, memory_size):
    model = make_from(config)
    state = model.initial_state(2, memory_size)
    assert_steps_near(model, state, random_inputs(model, 2, 2), make_step=gpu_step)


@pytest.mark.parametrize("name", ["dnc-2-read-3-write-heads", "dnc-masking", "ntm-2-read-2-write-heads"])
def test_tiles_do_not_change_what_is_computed(name, monkeypatch):
    """Columns of a memory two at a time; a link matrix in parts of two tiles of two rows."""
    model = make_from(replace(CATALOGUE[name], memory_size=11))
    monkeypatch.setattr(heads, "TILE_NUMBERS", 32)
    monkeypatch.setattr(heads, "LINK_NUMBERS", 32)
    monkeypatch.setattr(heads, "MOST_PARTS", 3)
    assert_steps_near(model, lived_in_state(model, 2), random_inputs(model, 2, 2), make_step=gpu_step)


@pytest.mark.parametrize("name", ["dnc-2-read-3-write-heads", "dnc-stack", "ntm-2-read-2-write-heads"])
def test_row_has_its_bits_in_any_company(name):
    model = make_from(CATALOGUE[name])
    rows, chosen = 19, [4, 18, 0]
    state, sequence = lived_in_state(model, rows), random_inputs(model, 2, rows).numpy()
    many, few = gpu_step(model, rows), gpu_step(model, 8)
    for row in range(rows):
        many.write(row, rows_of(state, row))
    for slot, row in enumerate(chosen):
        few.write(slot + 2, rows_of(state, row))
    for inputs in sequence:
        together, _ = many.step(range(rows), inputs)
        apart, _ = few.step([2, 3, 4], inputs[chosen])
        np.testing.assert_array_equal(together[chosen], apart)
    for slot, row in enumerate(chosen):
        ours, theirs = many.read(row), few.read(slot + 2)
        assert all(np.array_equal(ours[leaf], theirs[leaf]) for leaf in ours)


@pytest.mark.parametrize("steps", [1, 2, 7, 15, 16, 17, 48, 63])
def test_graphs_of_a_call_make_up_its_steps(steps):
    parts = lengths(steps)
    assert sum(parts) == steps
    assert {*parts} <= {1, 2, 4, 8, MOST_STEPS}
    assert len(parts) <= steps // MOST_STEPS + 4


@pytest.mark.parametrize("name", ["dnc-2-read-3-write-heads", "ntm-2-read-2-write-heads", "rnn"])
def test_steps_in_one_call_have_the_bits_of_single_calls(name, monkeypatch):
    monkeypatch.setattr(batch, "MOST_STEPS", 4)
    model = make_from(CATALOGUE[name])
    state, sequence = model.initial_state(3), random_inputs(model, 11, 3).numpy()
    one, many = gpu_step(model, 3), gpu_step(model, 3)
    for row in range(3):
        one.write(row, rows_of(state, row))
        many.write(row, rows_of(state, row))
    expected = np.stack([one.step([2, 0, 1], inputs)[0] for inputs in sequence])
    np.testing.assert_array_equal(many.run([2, 0, 1], sequence), expected)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError),
        (RuntimeError("CUDA error: out of memory"), MemoryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), RuntimeError),
    ],
)
def test_errors_of_torch_for_want_of_memory_are_known(error, raised):
    with pytest.raises(raised), memory_errors():
        raise error


def test_no_kernel_bounds_numbers_by_what_drops_nan():
    """A maximum of compiled code returns the other number for NaN, where the interpreter returns NaN."""
    for path in Path(layers.__file__).parent.glob("*.py"):
        assert not re.search(r"tl\.(maximum|minimum|clamp)", path.read_text()), path.name


@torch.no_grad()
@pytest.mark.parametrize("name", ["dnc-2-read-3-write-heads", "ntm-2-read-2-write-heads"])
def test_large_leaves_in_bfloat16_are_rounded_after_each_step(name):
    model = make_from(CATALOGUE[name])
    state, sequence = model.initial_state(1), random_inputs(model, 5, 1)
    step = gpu_step(model, 1, large="bfloat16")
    step.clear(0)
    for inputs in sequence:
        outputs, state, _ = model.step(inputs, state)
        state = rounded(state)
        ours, _ = step.step([0], inputs.numpy())
        np.testing.assert_allclose(ours, model.activate(outputs), atol=1e-2)
    leaves = step.read(0)
    for leaf, values in flatten(state).items():
        np.testing.assert_allclose(leaves[leaf], values[0], atol=0.02, err_msg=leaf)
    for leaf in LARGE & leaves.keys():
        assert np.array_equal(torch.tensor(leaves[leaf]).bfloat16().float().numpy(), leaves[leaf])


@pytest.mark.parametrize(("capability", "models"), [(90, ["L in bfloat16", "NTM", "improved"]), (80, ["S"])])
def test_kernels_compile_for_gpus_within_their_registers(capability, models):
    """Compile them to machine code, for which no GPU is needed: the interpreter takes what the compiler refuses."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.kernels.gpu_compiler", str(capability), *models]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    compiled = [line.split("\t") for line in done.stdout.splitlines()]
    kernels = {"linear", "lstm", "activate", "write", "link", "mix", "read"}
    assert {kernel for _, kernel, _, _ in compiled} >= kernels
    assert {model for model, _, _, _ in compiled} == set(models)
    spilled = [(model, kernel, int(local)) for model, kernel, _, local in compiled if int(local)]
    assert not spilled, "bytes of registers that do not fit"
