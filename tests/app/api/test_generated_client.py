"""A client that openapi-python-client generates from the OpenAPI document drives a real server."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from tests.app.copying import sequence
from tests.app.harness import ROOT, Server

PACKAGE = "engram_generated_client"
INPUTS = sequence(3)[0]
GENERATOR = Path(sys.prefix) / "generator"
"""The place of openapi-python-client, whose typer is an older one."""


@pytest.fixture(scope="module")
def generated(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Generate the package without a warning, and import it."""
    if not GENERATOR.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"no openapi-python-client in {GENERATOR}: scripts/test installs it"
        )
    out = tmp_path_factory.mktemp("generated") / "client"
    document = out.with_name("openapi.json")
    document.write_bytes(httpx.get(f"{server.url}/openapi.json").content)
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"]
    config = ROOT / "examples" / "openapi-python-client.yml"
    words = ["--path", str(document), "--config", str(config), "--output-path", str(out)]
    tools = f"{GENERATOR / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": tools, "PYTHONPATH": str(GENERATOR)}
    done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    sys.path.insert(0, str(out))
    yield importlib.import_module(PACKAGE)
    sys.path.remove(str(out))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def operation(path: str) -> Any:
    """Return the module of an operation, such as "sessions.open_session"."""
    return importlib.import_module(f"{PACKAGE}.api.{path}")


def models() -> Any:
    return importlib.import_module(f"{PACKAGE}.models")


def test_document_is_valid_openapi(client):
    validate(client.get("/openapi.json").json())


def test_generated_client_steps_a_session_and_reads_it(client, generated):
    with generated.Client(base_url=str(client.base_url)) as caller:
        opened = operation("sessions.open_session").sync(client=caller, body=models().OpenRequest(model="dnc-copy"))
        steps = models().StepsRequest(inputs=INPUTS, trace=["usage"], if_step=0)
        stepped = operation("sessions.step_session").sync(opened.id, client=caller, body=steps)
        expected = client.post("/infer", json={"model": "dnc-copy", "inputs": INPUTS, "trace": ["usage"]}).json()
        assert stepped.outputs == expected["outputs"]
        assert stepped.trace["usage"] == expected["trace"]["usage"]
        assert stepped.step == len(INPUTS)
        state = operation("sessions.read_state").sync(opened.id, client=caller, names="usage")
        assert state.state["usage"] == expected["trace"]["usage"][-1]
        recording = operation("time_travel.read_recording").sync(opened.id, client=caller)
        assert [json.loads(line)["outputs"] for line in recording.splitlines()] == expected["outputs"]
        fork = operation("time_travel.fork_session").sync(opened.id, client=caller, body=models().ForkRequest(step=1))
        assert fork.step == 1
        assert operation("sessions.delete_session").sync_detailed(fork.id, client=caller).status_code == 204


def test_generated_client_moves_a_session_by_its_snapshot(client, generated):
    with generated.Client(base_url=str(client.base_url)) as caller:
        opened = operation("sessions.open_session").sync(client=caller, body=models().OpenRequest(model="lstm-copy"))
        operation("sessions.step_session").sync(opened.id, client=caller, body=models().StepsRequest(inputs=INPUTS))
        snapshot = operation("time_travel.snapshot_session").sync(opened.id, client=caller)
        restored = operation("sessions.open_session").sync(client=caller, body=snapshot)
        assert (restored.model, restored.step) == ("lstm-copy", len(INPUTS))


def test_generated_client_reads_problems(client, generated):
    with generated.Client(base_url=str(client.base_url)) as caller:
        problem = operation("sessions.describe_session").sync("nobody", client=caller)
        assert isinstance(problem, models().ProblemAnswer)
        assert (problem.status, problem.code) == (404, "session_not_found")
        wrong = models().InferRequest(model="dnc-copy", inputs=[[0, 1]])
        assert operation("inference.infer").sync(client=caller, body=wrong).place == "inputs[0]"
