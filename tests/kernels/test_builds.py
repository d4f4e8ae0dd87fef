"""The kernels compiled in other ways: in float64, where only a wrong equation can differ; watched for undefined
behaviour; and for other machines."""

import platform
import subprocess
import sys

import pytest
import torch

from kernels import build
from kernels.library import Library
from kernels.unroll import FusedUnroll
from models.cells import ACTIVATIONS, cell_config
from models.rnn import RNNConfig
from models.state import flatten, map_leaves
from tests.kernels.test_unroll import COVERED, by_torch, error, unrolled
from tests.models.catalogue import CATALOGUE, lived_in_state, make_from, random_inputs

pytestmark = pytest.mark.slow

VARIANT = list(build.variants())[-1]
"""The plainest: runs on every machine that runs kernels at all."""

OTHERS = [machine for machine in build.TARGETS if machine != (platform.system(), platform.machine())]
"""The machines whose libraries no installation here has built."""


@pytest.mark.parametrize("name", COVERED)
def test_kernel_in_float64_is_the_model_to_nine_digits(name, float64):
    model = make_from(CATALOGUE[name]).double()
    inputs = random_inputs(model, 6, 3).to(torch.float32 if model.embedding else torch.float64)
    inputs = inputs.double()
    state = map_leaves(torch.Tensor.double, lived_in_state(model, 3))
    lengths = torch.tensor([6, 4, 6])
    actual = unrolled(model, FusedUnroll(model, kernels=float64), inputs, state, lengths)
    for result, expected in by_torch(model, inputs, state, lengths).items():
        assert error(actual[result], expected) <= 1e-9, result


@pytest.mark.parametrize("size", [1, 2, 40])
@pytest.mark.parametrize("name", ["dnc-look-up-scaling", "dnc-programs-improved", "ntm-programs"])
def test_kernel_in_float64_scales_look_ups_of_another_memory_size(name, size, float64):
    model = make_from(CATALOGUE[name]).double()
    inputs, state = random_inputs(model, 6, 3).double(), model.initial_state(3, size)
    actual = unrolled(model, FusedUnroll(model, kernels=float64), inputs, state)
    for result, expected in by_torch(model, inputs, state).items():
        assert error(actual[result], expected) <= 1e-9, result


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_kernel_in_float64_has_every_activation_of_every_cell(activation, float64):
    kinds = {"basic-rnn": {}, "gru": {}, "lstm": {"peepholes": True}, "feed-forward": {"layers": 2}}
    for kind, options in kinds.items():
        cell = cell_config({"kind": kind, "hidden_size": 5, "activation": activation, **options}, "cell")
        model = make_from(RNNConfig(3, 2, controller=cell)).double()
        inputs, state = random_inputs(model, 6, 3), lived_in_state(model, 3)
        actual = unrolled(model, FusedUnroll(model, kernels=float64), inputs, state)
        for result, expected in by_torch(model, inputs, state).items():
            assert error(actual[result], expected) <= 1e-9, (kind, result)


WATCHED = """
import sys
from pathlib import Path
from hypothesis import HealthCheck, given, settings
from kernels.support import not_fused, not_trained
from kernels.unroll import FusedUnroll
from models.registry import config_values
from tests.kernels.guarded import GuardedLibrary
from tests.kernels.test_unroll import COVERED, unrolled
from tests.kernels.test_update import trained
from tests.models.catalogue import CATALOGUE, lived_in_state, make_from, random_inputs
from tests.models.drawn import any_model
import torch

kernels = GuardedLibrary(Path(sys.argv[1]))
overrun = {}

def watch(name, model, rows, lengths):
    before, state, inputs = kernels.overruns, lived_in_state(model, rows), random_inputs(model, 3, rows)
    for budget in (1 << 30, 1):
        fused = FusedUnroll(model, kernels=kernels, threads=1, memory_budget=budget)
        unrolled(model, fused, inputs, state, lengths)
    with torch.no_grad():
        FusedUnroll(model, kernels=kernels, threads=1)(inputs, state, lengths)
    trained(model, kernels=kernels, threads=1)
    if kernels.overruns > before:
        overrun[name] = kernels.overruns - before

@settings(max_examples=int(sys.argv[2]), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(any_model(largest_memory=60))
def watch_any(config):
    watch(str(config), make_from(config), 3, None)

for name in COVERED:
    watch(name, make_from(CATALOGUE[name]), 1, None)
    watch(name, make_from(CATALOGUE[name]), 9, torch.arange(9) % 4)
watch_any()
print("watched", len(COVERED), "overrun", overrun)
"""


def watched(path, examples):
    """Run the models of the catalogue and random ones by a library with guards; return what was printed and logged."""
    command = [sys.executable, "-c", WATCHED, str(path), str(examples)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return run.stdout, run.stderr


def test_kernel_does_nothing_undefined_and_overruns_no_array(tmp_path):
    watching = ["-fsanitize=undefined", "-fno-sanitize-trap=undefined", "-O0", "-g", "-DENGRAM_GUARDS"]
    printed, errors = watched(build.build(tmp_path / "watched.so", VARIANT, *watching), 60)
    assert printed == f"watched {len(COVERED)} overrun {{}}\n"
    assert "runtime error" not in errors


@pytest.mark.parametrize("library", build.library_paths(), ids=lambda path: path.stem)
def test_all_libraries_that_run_here_give_the_same_bits(library):
    kernels = Library(library)
    if not kernels.runs_here:
        pytest.skip(f"this processor lacks what {library.name} needs")
    plainest = Library(build.library_paths()[-1])
    for name in (
        "dnc-stack",
        "dnc-skip-connections",
        "dnc-link-sharpening",
        "ntm-pytorch",
        "ntm-before-controller-stack",
        "ntm-programs-before-controller",
    ):
        model = make_from(CATALOGUE[name])
        inputs, state = random_inputs(model, 5, 13), lived_in_state(model, 13)
        ours, theirs = (
            unrolled(model, FusedUnroll(model, kernels=which), inputs, state) for which in (kernels, plainest)
        )
        assert all(torch.equal(ours[result], theirs[result]) for result in ours)


@pytest.mark.parametrize("machine", OTHERS, ids="-".join)
def test_libraries_compile_for_every_other_machine_that_is_named(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(build.platform, "system", lambda: machine[0])
    monkeypatch.setattr(build.platform, "machine", lambda: machine[1])
    for variant in build.variants():
        path = build.build(tmp_path / f"library{variant}.so", variant)
        assert path.stat().st_size > 10_000
    assert sorted(tmp_path.glob("*")) == sorted(tmp_path.glob("*.so"))


def test_build_on_machine_without_kernels_is_refused(monkeypatch):
    monkeypatch.setattr(build.platform, "machine", lambda: "s390x")
    assert build.library_paths() == []
    with pytest.raises(build.BuildFailed, match="there are no kernels for Linux on s390x"):
        build.build_all()


def test_source_that_does_not_compile_leaves_no_library(tmp_path):
    with pytest.raises(build.BuildFailed, match="no-such-option"):
        build.build(tmp_path / "library.so", VARIANT, "--no-such-option")
    assert list(tmp_path.iterdir()) == []


def test_state_of_a_float32_kernel_is_not_taken_for_float64(float64):
    model = make_from(CATALOGUE["dnc"]).double()
    state = map_leaves(torch.Tensor.float, model.initial_state(2))
    assert flatten(state)["memory"].dtype == torch.float32
    with pytest.raises(ValueError, match="must be float64 on the CPU, got torch"):
        FusedUnroll(model, kernels=float64)(random_inputs(model, 3, 2).double(), state)
