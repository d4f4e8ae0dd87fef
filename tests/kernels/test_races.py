"""The threads of the kernels under ThreadSanitizer: Python within a program that has its runtime."""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from kernels import build
from kernels.layout import header
from tests.kernels.test_builds import VARIANT

pytestmark = pytest.mark.slow

LIBRARIES = sysconfig.get_config_var("LIBDIR")

HOST = "#include <Python.h>\nint main(int argc, char **argv) { return Py_BytesMain(argc, argv); }\n"

RACED = """
import sys
from pathlib import Path
import torch
from kernels import plan
from kernels.library import Library
from kernels.unroll import FusedUnroll
from tests.kernels.test_unroll import unrolled
from tests.kernels.test_update import trained
from tests.models.catalogue import CATALOGUE, lived_in_state, make_from, random_inputs

torch.set_num_threads(1)
plan.LEAST_PER_THREAD = 1
kernels = Library(Path(sys.argv[1]))
make_calls = kernels.make_calls

def make_all_gradients(team, calls, count):
    for call in calls if count > 1 else ():
        call.part, call.parts = 0, 1
    make_calls(team, calls, count)

if sys.argv[2] == "planted":
    kernels.make_calls = make_all_gradients
for name in sys.argv[3:]:
    model = make_from(CATALOGUE[name])
    state, inputs = lived_in_state(model, 66), random_inputs(model, 30, 66)
    for budget in (1 << 30, 1):
        fused = FusedUnroll(model, kernels=kernels, threads=3, memory_budget=budget)
        unrolled(model, fused, inputs, state, torch.arange(66) % 31)
        trained(model, kernels=kernels, threads=3, memory_budget=budget)
print("raced", len(sys.argv) - 3)
"""

MODELS = [
    "dnc-2-read-3-write-heads",
    "dnc-masking",
    "ntm-in-turn",
    "ntm-programs-before-controller",
    "rnn-lstm-projection",
]


RANDOM_BITS = Path("/proc/sys/vm/mmap_rnd_bits")
"""How many bits of addresses Linux randomises: with more than 28, older runtimes of ThreadSanitizer end at once."""

PLAIN_CALLS = ["-mllvm", "-tsan-instrument-memintrinsics=0"]
"""Leave memset and memcpy calls, which every runtime intercepts: gcc's has no functions of its own for them."""


def compiled(*arguments):
    run = subprocess.run([*build._compiler(), *map(str, arguments)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def compiled_with_runtime(*arguments):
    """Compile a program by the system's compiler, which has the runtime, or else by zig, which compiles it first."""
    system = shutil.which("cc")
    runs = system and RANDOM_BITS.exists() and int(RANDOM_BITS.read_text()) <= 28
    if not runs or subprocess.run([system, *map(str, arguments)], capture_output=True).returncode:
        compiled(*arguments)


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    """Return a function that runs models on three threads and returns what was printed and reported."""
    if sys.platform != "linux" or not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        pytest.skip("ThreadSanitizer's runtime needs a program around a shared libpython, on Linux")
    directory = tmp_path_factory.mktemp("races")
    (directory / "host.c").write_text(HOST)
    (directory / "declared.h").write_text(f'#define SOURCES "{build.fingerprint()}"\n{header()}')
    include, host, library = f"-I{sysconfig.get_config_var('INCLUDEPY')}", directory / "host", directory / "raced.so"
    python = f"-lpython{sysconfig.get_config_var('LDVERSION')}"
    linked = [f"-L{LIBRARIES}", python, f"-Wl,-rpath,{LIBRARIES}"]
    compiled_with_runtime("-fsanitize=thread", "-rdynamic", include, "-o", host, directory / "host.c", *linked)
    target, processor = build.variants()[VARIANT]
    machine = ["-target", target, f"-mcpu={processor}"]
    options = [option for option in build.OPTIONS if option != "-shared"]
    options += ["-O1", "-g", "-fsanitize=thread", *PLAIN_CALLS]
    compiled(*machine, *options, "-I", directory, "-c", "-o", directory / "raced.o", build.SOURCES / "engram.c")
    compiled(*machine, "-shared", "-Wl,-z,undefs", "-o", library, directory / "raced.o")

    def run(*arguments):
        paths = [str(Path(build.HERE).parent), *site.getsitepackages()]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHOME": str(Path(LIBRARIES).parent)}
        command = [host, "-c", RACED, library, *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment)
        return ran.stdout, ran.stderr

    return run


@pytest.mark.timeout(1500)  # where zig compiles the runtime, that takes a minute
def test_threads_write_nothing_that_another_uses(raced):
    printed, reported = raced("as-it-is", *MODELS)
    assert printed == f"raced {len(MODELS)}\n"
    assert "WARNING: ThreadSanitizer" not in reported


@pytest.mark.timeout(1500)
def test_race_that_is_planted_is_reported(raced):
    _, reported = raced("planted", "dnc-2-read-3-write-heads")
    assert "WARNING: ThreadSanitizer: data race" in reported
