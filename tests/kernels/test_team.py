"""Threads that share calls: sequences of one model by many threads, awake and asleep, ended and forked."""

import gc
import os
import subprocess
import sys
import time

import pytest
import torch

from kernels import plan
from kernels.unroll import FusedUnroll
from tests.kernels.test_unroll import assert_same, unrolled
from tests.models.catalogue import CATALOGUE, lived_in_state, make_from, random_inputs

FORKED = """
import os
import torch
from kernels import plan
from kernels.unroll import FusedUnroll
from tests.models.catalogue import CATALOGUE, make_from, random_inputs

plan.LEAST_PER_THREAD = 1
model = make_from(CATALOGUE["dnc"])
inputs, fused = random_inputs(model, 3, 8), FusedUnroll(model, threads=3)
with torch.no_grad():
    expected = fused(inputs)[0]
    child = os.fork()
    same = torch.equal(fused(inputs)[0], expected)
    if not child:
        os._exit(0 if same else 1)
    print(same, os.waitpid(child, 0)[1])
"""


@pytest.fixture
def shared(monkeypatch):
    """Return a function that makes a model's unroll by some threads, which share even the smallest sequence."""
    monkeypatch.setattr(plan, "LEAST_PER_THREAD", 1)
    model = make_from(CATALOGUE["dnc"])
    return lambda threads: (model, FusedUnroll(model, threads=threads))


def threads_of_this_process():
    return len(os.listdir("/proc/self/task"))


def test_sequences_are_the_same_after_every_wait(shared):
    model, alone = shared(1)
    _, together = shared(4)
    for pause in (0, 0, 5e-4, 1e-3, 1.1e-3, 0.01):
        for rows in (1, 3, 9):
            inputs, state = random_inputs(model, 4, rows), lived_in_state(model, rows)
            time.sleep(pause)  # the threads look for the next call, are about to sleep, or sleep
            assert_same(unrolled(model, together, inputs, state), unrolled(model, alone, inputs, state))


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_threads_live_from_a_shared_call_to_their_model(shared):
    gc.collect()
    before = threads_of_this_process()
    model, fused = shared(4)
    assert threads_of_this_process() == before
    with torch.no_grad():
        fused(random_inputs(model, 2, 8))
    assert threads_of_this_process() == before + 3
    del fused
    gc.collect()
    assert threads_of_this_process() == before


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_process_has_threads_of_its_own():
    ran = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("True 0\n", "")
