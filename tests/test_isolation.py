"""`benchmarks.isolation` finds planted leaks, in every situation, and none where there is none."""

import functools
import sys

import numpy as np
import onnx
import pytest

from benchmarks import isolation
from benchmarks.isolation import SITUATIONS, Options
from tests.app.checkpoints import make_checkpoint, make_token_checkpoint
from tests.planted import starting

pytestmark = pytest.mark.slow

BESIDE = {"batched", "extremes", "refused", "moving", "sized", "framed"}
MOVED = {"to fused", "to onnx", "to torch"}
"""Two of these are played: the main server has the third back end."""

ON_ONE_SERVER = frozenset({"again", "permuted", "sockets", "inferred", "forked"} | BESIDE)
"""The situations that need no server but the main one, started once."""

ALL = frozenset(situation.name for situation in SITUATIONS)

RESTORING = frozenset({"forked", "evicted", "killed", "moved"})
"""The situations in which a state is put into a slot."""

CLEAN = [("clean", "fused"), ("clean", "onnx"), ("tokens", "onnx"), ("stateless", "onnx")]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    directory = tmp_path_factory.mktemp("isolation")
    make_checkpoint(directory / "clean", "dnc")
    make_token_checkpoint(directory / "tokens")
    make_token_checkpoint(directory / "stateless", controller={"kind": "feed-forward", "hidden_size": 8})
    mix_rows(make_checkpoint(directory / "mixing", "dnc") / "model.onnx", 1e-2)
    mix_rows(make_checkpoint(directory / "barely mixing", "dnc") / "model.onnx", 5e-6)
    return directory


def mix_rows(path, share):
    """Add a share of its mean over the batch to a leaf of the graph's next state."""
    model, leaf = onnx.load(path), "next.controller.h"
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{leaf}.own" if name == leaf else name for name in names]
    axes = onnx.numpy_helper.from_array(np.array([0]), "mixing.axes")
    scale = onnx.numpy_helper.from_array(np.array(share, np.float32), "mixing.share")
    model.graph.initializer.extend([axes, scale])
    make = onnx.helper.make_node
    model.graph.node.extend(
        [
            make("ReduceMean", [f"{leaf}.own", "mixing.axes"], ["mixing.mean"]),
            make("Mul", ["mixing.mean", "mixing.share"], ["mixing.part"]),
            make("Add", [f"{leaf}.own", "mixing.part"], [leaf]),
        ]
    )
    onnx.save(model, path)


@pytest.fixture(scope="module")
def report(checkpoints):
    """Return the report of a model, of a few steps and of all or some situations, each made once."""

    @functools.cache
    def made(model, backend, plant, names):
        return played(Options(checkpoints, backend, 2, 6, start=starting(plant)), model, names)

    return lambda model, backend="onnx", plant=None, names=ALL: made(model, backend, plant, names)


def played(options, model, names):
    """Return the report of some situations: each that needs a server of its own costs the start of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolation, "SITUATIONS", [situation for situation in SITUATIONS if situation.name in names])
        return isolation.isolate(options, model, lambda *_: None)


def found(report):
    return {verdict.situation.name for verdict in report.verdicts if verdict.fault}


@pytest.mark.parametrize(("model", "backend"), CLEAN)
def test_clean_model_passes(report, model, backend):
    clean = report(model, backend)
    assert clean.faults == []
    assert all(verdict.alone.compared for verdict in clean.verdicts)
    beside = [verdict.others for verdict in clean.verdicts if verdict.situation.name in BESIDE]
    assert {(finding.compared, finding.held) for finding in beside} == {(2 * (6 + 1), 2 * 6)}


def test_graph_that_mixes_rows_is_found_in_batches(report):
    assert found(report("mixing", names=ON_ONE_SERVER)) >= BESIDE | {"permuted", "inferred"}


def test_mixing_below_rounding_is_found_beside_other_strangers(report):
    barely = report("barely mixing", names=ON_ONE_SERVER)
    leaks = {verdict.situation.name for verdict in barely.verdicts if verdict.others and verdict.others.leak}
    assert leaks >= {"batched", "extremes", "moving", "framed"}
    assert all(verdict.alone.leak is None for verdict in barely.verdicts if verdict.situation.name == "batched")


def test_shared_buffer_is_found(report):
    assert found(report("clean", plant="shared buffer")) >= {"again", "forked", "evicted", "killed", "moved"}


def test_shared_buffer_of_restoring_is_found(report):
    assert found(report("clean", "fused", "shared restoring", RESTORING)) == RESTORING


def test_back_end_that_does_not_start_is_noted(checkpoints):
    def start(*words):
        if "torch" in words:
            raise SystemExit("starting\nno torch here")
        return starting()(*words)

    report = played(Options(checkpoints, "onnx", 2, 4, start=start), "tokens", MOVED)
    assert [verdict.note for verdict in report.verdicts if verdict.note] == ["not served there: no torch here"]
    assert report.faults == []


def test_server_that_does_not_start_again_is_a_failure(checkpoints):
    started = []

    def start(*words):
        started.append(words)
        return starting()(*words) if len(started) < 2 else sys.exit("no second time")

    report = played(Options(checkpoints, "onnx", 2, 4, start=start), "tokens", {"again", "killed", "moved"})
    assert report.faults == ["killed: no second time"]
    assert [verdict.situation.name for verdict in report.verdicts] == ["again", "killed"]


def test_slot_that_is_not_cleared_is_found(report):
    assert "again" in found(report("clean", plant="not cleared", names=ON_ONE_SERVER))


def test_refusal_of_one_session_instead_of_all_is_found(report):
    late = report("clean", plant="late refusal")
    assert found(late) == {"refused"}


@pytest.mark.parametrize("backend", ["fused", "onnx"])
def test_shared_buffer_is_found_on_the_back_end_moved_to(report, backend):
    moved = {verdict.situation.name: verdict for verdict in report("clean", backend, "shared buffer").verdicts}
    assert all(moved[name].others.leak for name in MOVED & moved.keys())


def test_every_situation_finds_a_planted_leak(report):
    plants = [("fused", "shared buffer"), ("onnx", "shared buffer"), ("fused", "shared restoring", RESTORING)]
    reports = [report("mixing", names=ON_ONE_SERVER), *(report("clean", *plant) for plant in plants)]
    assert set().union(*map(found, reports)) == {situation.name for situation in SITUATIONS}
