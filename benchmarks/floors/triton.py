"""NVIDIA Triton, its Python back end and the torch model: python -m benchmarks.floors.triton CHECKPOINT DIR SESSIONS

Sequences are batched by the strategy `oldest`, which takes one request of each sequence. DIR is where RECIPE installs
the package: a server for CPUs, without pytriton's own Python.
"""

import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from benchmarks.floors import is_ready
from benchmarks.ports import free_port
from models.manifest import read_manifest

RECIPE = "pip install --no-deps --target {directory} nvidia-pytriton==0.7.0"

CONFIG = """\
name: "engram"
backend: "python"
max_batch_size: {sessions}
input [{{ name: "INPUT" data_type: TYPE_FP32 dims: [{input_size}] }}]
output [{{ name: "OUTPUT" data_type: TYPE_FP32 dims: [{output_size}] }}]
instance_group [{{ count: 1 kind: KIND_CPU }}]
parameters {{ key: "checkpoint" value: {{ string_value: "{checkpoint}" }} }}
sequence_batching {{
  max_sequence_idle_microseconds: 3600000000
  oldest {{ max_candidate_sequences: {candidates} }}
  control_input [
    {{ name: "START" control [{{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }}] }},
    {{ name: "CORRID" control [{{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }}] }}
  ]
}}
"""

SPARE_SEQUENCES = 64
"""Sequences beside those of the connections, for the checks."""

MODEL = """\
import sys
sys.path[:0] = {path!r}
from benchmarks.floors.triton_model import TritonPythonModel
"""
"""The variables of the server: its back end's Python does not see a virtual environment."""


def tritonserver(directory: Path) -> Path:
    """Return the server's directory in a package. Raises FileNotFoundError, with the commands that install it."""
    found = directory / "pytriton" / "tritonserver"
    if not (found / "bin" / "tritonserver").is_file():
        recipe = RECIPE.format(directory=shlex.quote(str(directory)))
        raise FileNotFoundError(f"no Triton in {directory}; to get it: {recipe}")
    return found


def prepare(checkpoint: Path, server: Path, sessions: int, root: Path) -> None:
    """Make a repository of one model, and the Python back end with the stub of this version of Python."""
    manifest, model = read_manifest(checkpoint), root / "models" / "engram" / "1"
    model.mkdir(parents=True)
    path = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
    (model / "model.py").write_text(MODEL.format(path=path))
    sizes = {"input_size": manifest.input_size, "output_size": manifest.output_size, "sessions": sessions}
    config = CONFIG.format(checkpoint=checkpoint.resolve(), candidates=sessions + SPARE_SEQUENCES, **sizes)
    (model.parent / "config.pbtxt").write_text(config)
    shutil.copytree(server / "backends", root / "backends")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", root / "backends" / "python")


def start(server: Path, root: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start Triton on the repository of `prepare`."""
    command = [str(server / "bin" / "tritonserver"), f"--model-repository={root / 'models'}"]
    command += [f"--backend-directory={root / 'backends'}", "--http-address=127.0.0.1", f"--http-port={port}"]
    command += ["--allow-grpc=false", "--allow-metrics=false", "--disable-auto-complete-config", "--log-info=false"]
    libraries = f"{server.parents[1] / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"
    return subprocess.Popen(command, env={"LD_LIBRARY_PATH": libraries}, stdout=subprocess.DEVNULL)


def main(checkpoint: Path, directory: Path, sessions: int) -> int:
    """Run Triton until a signal, and return its exit status."""
    server = tritonserver(directory)
    with tempfile.TemporaryDirectory() as root:
        prepare(checkpoint, server, sessions, Path(root))
        port = free_port()
        with start(server, Path(root), port) as process:
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            while process.poll() is None and not is_ready(port, "/v2/models/engram/ready"):
                time.sleep(0.1)
            if process.poll() is None:
                sys.stderr.write(f"Triton is on http://127.0.0.1:{port} (end it by a signal)\n")
        return process.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
