"""Start, refusal to start, and stop of a server, with real processes."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import onnx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.app.checkpoints import copy_checkpoint, make_checkpoint
from tests.app.harness import CHECKPOINTS, ROOT, Server, running_server

STOPPED = (0, -signal.SIGTERM)
"""The exit status of a server after SIGTERM: 0, or the signal, which uvicorn may raise again."""


SLOW = {"model": "dnc-copy", "memory_size": 1024}
"""A model with slow steps: a sequence of thousands is still in work when the next request arrives."""

STEP = {"inputs": [[0.0] * 10]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny", "ntm")


def refusal(server: Server) -> str:
    """Wait for a server that must not start; return the last line of its log."""
    assert server.process.wait(timeout=60) == 1
    assert "Traceback" not in server.log
    return server.log.splitlines()[-1]


def wait_for_sequences(server: Server, count: int) -> None:
    """Wait until `count` sequences of dnc-copy are in work or waiting."""
    while f'engram_sequences{{model="dnc-copy"}} {count}.0' not in httpx.get(f"{server.url}/metrics").text:
        time.sleep(0.01)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_weights(directory: Path) -> None:
    """Replace the weights and the manifest beside the ONNX graph by those of another training run."""
    other = make_checkpoint(directory.parent.parent / "other", "ntm", seed=2)
    for name in ("model.safetensors", "manifest.json"):
        (directory / name).write_bytes((other / name).read_bytes())


def edit_manifest(directory: Path, **changes: object) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_metadata(directory: Path, **changes: str) -> None:
    graph = onnx.load(directory / "model.onnx")
    known = {entry.key: entry.value for entry in graph.metadata_props}
    onnx.helper.set_model_props(graph, known | {f"engram.{name}": value for name, value in changes.items()})
    onnx.save(graph, directory / "model.onnx")


def edit_both(directory: Path, **changes: object) -> None:
    """Change the manifest and its copy inside the graph."""
    edit_manifest(directory, **changes)
    edit_metadata(directory, manifest=(directory / "manifest.json").read_text())


def edit_config(directory: Path, **changes: object) -> None:
    config = json.loads((directory / "manifest.json").read_text())["config"]
    edit_both(directory, config=config | changes)


def fix_memory_size(directory: Path, memory_size: int) -> None:
    """Give the graph a fixed number of memory locations."""
    graph = onnx.load(directory / "model.onnx")
    for entry in [*graph.graph.input, *graph.graph.output]:
        for axis in entry.type.tensor_type.shape.dim:
            if axis.dim_param == "slots":
                axis.dim_value = memory_size
    onnx.save(graph, directory / "model.onnx")


WIDE = {"kind": "lstm", "hidden_size": 50}

DAMAGES = {
    "no manifest": (lambda d: (d / "manifest.json").unlink(), "manifest.json: No such file"),
    "manifest cut off": (lambda d: truncate(d / "manifest.json"), "manifest.json: not JSON"),
    "weights cut off": (lambda d: truncate(d / "model.safetensors"), "model.safetensors: its SHA-256 is"),
    "weights missing": (lambda d: (d / "model.safetensors").unlink(), "model.safetensors: no such file"),
    "graph cut off": (lambda d: truncate(d / "model.onnx"), "model.onnx: onnxruntime cannot load it"),
    "weights of another run": (replace_weights, "model.onnx was exported from weights with SHA-256"),
    "a sample that is none": (
        lambda d: (d / "sample.safetensors").write_bytes(b"x"),
        "it cannot be read as safetensors",
    ),
    "a manifest of brackets": (lambda d: (d / "manifest.json").write_text("[" * 100_000), "manifest.json: not JSON"),
    "half a character": (lambda d: edit_manifest(d, kind="\ud800"), "manifest.json: not JSON"),
    "no config": (lambda d: edit_manifest(d, config={}), "config.output_activation must be one of"),
    "a size that is true": (lambda d: edit_manifest(d, input_size=True), "input_size must be of type int"),
    "shapes of words": (lambda d: edit_manifest(d, state={"memory": ["a"]}), "state.memory must be a list of sizes"),
    "another width than the graph": (lambda d: edit_manifest(d, input_size=5), "model.onnx was exported with"),
    "a width that the graph has not": (lambda d: edit_both(d, input_size=5), "it cannot take a step"),
    "a leaf that the state has not": (lambda d: edit_both(d, state={"memory": [8, 4]}), "its manifest says state"),
    "no memory size": (lambda d: edit_config(d, memory_size=None), "its manifest says state"),
    "a memory size that is true": (lambda d: edit_config(d, memory_size=True), "config.memory_size must be a whole"),
    "no links per slot": (lambda d: edit_config(d, links="sparse"), "config.links_per_slot must be a whole number"),
    "a vocabulary of words": (lambda d: edit_config(d, embedding={"size": 5}), "config.embedding must have"),
    "groups that the outputs are not": (
        lambda d: edit_config(d, output_groups=3),
        "divisor of output_size, which is 2",
    ),
    "no groups of outputs": (lambda d: edit_config(d, output_groups=0), "must be a divisor of output_size"),
    "a controller that the weights have not": (
        lambda d: edit_config(d, controller=WIDE),
        "are not those of the config",
    ),
    "another kind than the graph": (lambda d: edit_manifest(d, kind="dnc"), "model.onnx was exported with kind ntm"),
    "a graph of one memory size": (lambda d: fix_memory_size(d, 8), "with memory_size 9"),
    "no first state": (lambda d: edit_metadata(d, initial_state=""), "its engram.initial_state is damaged"),
    "junk for a first state": (lambda d: edit_metadata(d, initial_state="junk"), "its engram.initial_state is damaged"),
}


def name_of(damage: str) -> str:
    return damage.replace(" ", "-")


@pytest.fixture(scope="module")
def damaged(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server of a sound checkpoint, beside one of each damage."""
    directory = tmp_path_factory.mktemp("damaged")
    root = directory / "checkpoints"
    copy_checkpoint(tiny, root / "sound")
    for damage, (inflict, _) in DAMAGES.items():
        inflict(copy_checkpoint(tiny, root / name_of(damage)))
    with running_server(data=directory / "data", checkpoints=root) as server:
        yield server


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_reported_and_others_are_served(damage, damaged):
    name, (_, complaint) = name_of(damage), DAMAGES[damage]
    assert [model["name"] for model in httpx.get(f"{damaged.url}/models").json()] == ["sound"]
    problem = httpx.get(f"{damaged.url}/models/{name}").json()
    assert httpx.get(f"{damaged.url}/readyz").json()["failed"].keys() == {*map(name_of, DAMAGES)}
    assert (problem["code"], complaint in problem["detail"]) == ("model_not_found", True)
    assert any(f" {name} is not served: " in line and complaint in line for line in damaged.log.splitlines())
    assert "Traceback" not in damaged.log


@pytest.mark.parametrize("controller", [{}, {"kind": "stack"}])
def test_unsupported_controller_is_computed_by_onnx(controller, tiny, tmp_path, data):
    edit_config(copy_checkpoint(tiny, tmp_path / "checkpoints" / "odd"), controller=controller)
    with running_server(data=data, checkpoints=tmp_path / "checkpoints") as server:
        assert httpx.get(f"{server.url}/models/odd").json()["backend"] == "onnx"
    assert "odd: its steps are computed by ONNX Runtime: its c" in server.log


def edit(path: Path, text: str, instead: str) -> None:
    assert text in path.read_text()
    path.write_text(path.read_text().replace(text, instead))


@pytest.mark.slow
def test_outdated_kernels_are_not_used_until_rebuilt(tiny, tmp_path, data):
    pulled, request = tmp_path / "pulled", {"model": tiny.name, "inputs": [[0.0, 1.0, 0.0, 0.0]]}
    for room in ("app", "engram", "kernels", "models"):
        shutil.copytree(ROOT / room, pulled / room, ignore=shutil.ignore_patterns("__pycache__"))
    edit(pulled / "kernels/src/model.h", "double clip;", "double pulled, clip;")
    edit(pulled / "kernels/layout.py", 'Float: "clip', 'Float: "pulled clip')
    with running_server(data=data, checkpoints=tiny.parent, root=pulled) as server:
        assert httpx.get(f"{server.url}/models/{tiny.name}").json()["backend"] == "onnx"
        assert httpx.post(f"{server.url}/infer", json=request).status_code == 200
    assert "WARNING kernels.library: no fused kernels: libengram" in server.log
    assert "it was built from other sources than those beside it; python -m kernels.build builds" in server.log
    subprocess.run([sys.executable, "-m", "kernels.build"], cwd=pulled, check=True)
    with running_server(data=data, checkpoints=tiny.parent, root=pulled) as server:
        assert httpx.get(f"{server.url}/models/{tiny.name}").json()["backend"] == "fused"
        assert httpx.post(f"{server.url}/infer", json=request).status_code == 200


def test_nothing_to_serve_is_refused(tmp_path, data):
    (tmp_path / "empty").mkdir()
    assert "no directory" in refusal(Server(data=data, checkpoints=tmp_path / "missing", fresh=True))
    assert "manifest.json" in refusal(Server(data=data, checkpoints=tmp_path / "empty"))


def test_single_checkpoint_is_refused_with_its_parent_directory(tiny, tmp_path, data):
    (tmp_path / "two words").mkdir()
    single = copy_checkpoint(tiny, tmp_path / "two words" / "tiny")
    line = refusal(Server(data=data, checkpoints=single))
    assert line.endswith(
        f"is a checkpoint itself: give the directory that it is in, --checkpoints '{tmp_path}/two words'"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--max-batch", "0"], "setting max_batch: input should be greater than or equal to 1, got '0'"),
        (["--config", "nowhere.toml"], "config: no file nowhere.toml"),
        (["--device", "cuda", "--backend", "onnx"], "device cuda"),
        (["--device", "cuda"], "device cuda"),
        (["--device", "cpu", "--state-dtype", "bfloat16"], "a GPU, but the CPU computes the steps"),
        (["--memory-size", "dnc=64"], "setting memory_size: there is no model 'dnc'; expected one of dnc-"),
        (["--memory-size", "lstm-copy=64"], "setting memory_size 64 is not available: lstm-copy has no memory"),
        (["--snapshots", "dnc=1"], "setting snapshots: there is no model 'dnc'; expected one of dnc-"),
        (["--memory-size", "dnc-copy=9000"], "more than 16777216 (setting max_state_bytes); expected at most 2037"),
    ],
)
def test_bad_setting_is_refused_by_name(arguments, complaint, data):
    assert complaint in refusal(Server(*arguments, data=data))


def test_port_in_use_is_refused(data):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        server = Server("--port", port, data=data)
        assert server.process.wait(timeout=60) > 0
    assert "address already in use" in server.log


def test_second_server_on_one_data_directory_is_refused(tiny, data):
    with running_server(data=data, checkpoints=tiny.parent) as first:
        line = refusal(Server(data=data, checkpoints=tiny.parent))
        assert httpx.get(f"{first.url}/readyz").status_code == 200
    assert line.startswith("engram: ")
    assert "another server" in line


def test_public_address_without_a_key_is_refused(tiny, data):
    line = refusal(Server("--host", "0.0.0.0", data=data, checkpoints=tiny.parent))
    assert "engram: setting host: there are no keys, so the server listens on this machine only" in line
    assert f"make a key with engram keys create --data {data}, or name a file with one by key_file" in line
    assert not data.exists(), "nothing was begun"


def test_public_address_is_warned_of(tiny, data):
    with running_server("--host", "0.0.0.0", "--insecure", data=data, checkpoints=tiny.parent) as server:
        assert "which has no keys" in server.log


def test_public_address_with_a_key_is_served(tiny, data, tmp_path):
    (tmp_path / "secret").write_text("0" * 32)
    flags = ["--host", "0.0.0.0", "--key-file", tmp_path / "secret"]
    with running_server(*flags, data=data, checkpoints=tiny.parent) as server:
        assert "which has no keys" not in server.log


def test_file_without_a_key_is_refused(tiny, data, tmp_path):
    (tmp_path / "secret").write_text("changeme\n")
    line = refusal(Server("--key-file", tmp_path / "secret", data=data, checkpoints=tiny.parent))
    assert f"key_file {tmp_path / 'secret'}: expected one key, 32 to 512 letters" in line


def test_keys_that_cannot_be_read_are_refused(tiny, data):
    data.mkdir()
    (data / "keys.sqlite").write_bytes(b"x" * 5000)
    line = refusal(Server(data=data, checkpoints=tiny.parent))
    assert f"engram: {data / 'keys.sqlite'}: file is not a database; put back a copy of the file" in line


def test_running_server_reads_keys_that_others_change(tiny, data):
    def log_has(text):
        while text not in server.log:
            assert server.process.poll() is None
            time.sleep(0.05)

    def keys(*words):
        command = [sys.executable, "-m", "engram", "keys", *words, "--data", str(data)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    with running_server(data=data, checkpoints=tiny.parent) as server:
        token = keys("create", "--tenant", "team-a")
        log_has("there are keys: requests need one from now on")
        keys("revoke", token)
        log_has(f"key {token.split('_')[1]} of tenant team-a is valid no more: invalid_key")
        assert token.split("_")[2] not in server.log


def test_local_address_is_not_warned_of(tiny, data):
    with running_server(data=data, checkpoints=tiny.parent) as server:
        assert "which has no keys" not in server.log


@pytest.mark.slow
def test_torch_serves_the_same_answers_as_onnx(few, tmp_path):
    inputs = [[0.0, 1.0] * 5] * 12
    answers = []
    for backend in ("onnx", "torch"):
        with running_server("--backend", backend, data=tmp_path / backend, checkpoints=few, fresh=True) as server:
            assert httpx.get(f"{server.url}/models/dnc-copy").json()["backend"] == backend
            request = {"model": "dnc-copy", "inputs": inputs}
            answers.append(httpx.post(f"{server.url}/infer", json=request, timeout=30).json()["outputs"])
    assert answers[0] == [pytest.approx(step, abs=1e-3) for step in answers[1]]


def test_checkpoint_without_a_graph_is_served_by_torch(tmp_path, data):
    directory = copy_checkpoint(CHECKPOINTS / "ntm-copy", tmp_path / "checkpoints" / "ntm")
    (directory / "model.onnx").unlink()
    with running_server(data=data, checkpoints=directory.parent, fresh=True) as server:
        assert httpx.get(f"{server.url}/models/ntm").json()["backend"] == "torch"
    [line] = [line for line in server.log.splitlines() if " ntm: " in line]
    assert line.endswith(f"ONNX Runtime need; make it with: engram export {directory}")


@pytest.mark.parametrize("target", ["moved-elsewhere", "gone"], ids=["nowhere", "itself"])
def test_broken_link_is_reported_and_others_are_served(target, tiny, tmp_path, data):
    root = tmp_path / "checkpoints"
    copy_checkpoint(tiny, root / "sound")
    (root / "gone").symlink_to(target)
    with running_server(data=data, checkpoints=root) as server:
        assert [model["name"] for model in httpx.get(f"{server.url}/models").json()] == ["sound"]
        assert httpx.get(f"{server.url}/readyz").json()["failed"].keys() == {"gone"}
    reason = f"a symbolic link to {target}, which does not exist: remove the link, or mend it"
    logged = f"gone is not served: {root}/gone: {reason}"
    assert [line for line in server.log.splitlines() if line.endswith(logged)]


@pytest.mark.slow
def test_files_and_data_beside_checkpoints_are_ignored(tiny, tmp_path):
    root = tmp_path / "checkpoints"
    copy_checkpoint(tiny, root / "sound")
    (root / "README.md").write_text("notes")
    (root / "link.md").symlink_to("README.md")
    (root / ".hidden").symlink_to("nowhere")
    with running_server(data=root / "data", checkpoints=root) as server:
        assert httpx.get(f"{server.url}/readyz").json()["failed"] == {}


def test_overflowing_input_is_refused_and_changes_nothing(tmp_path, data):
    make_checkpoint(tmp_path / "checkpoints" / "huge", scale=1e30)
    with (
        running_server(data=data, checkpoints=tmp_path / "checkpoints") as server,
        httpx.Client(base_url=server.url) as c,
    ):
        session = c.post("/sessions", json={"model": "huge"}).json()["id"]
        before = c.get(f"/sessions/{session}/state").json()
        refused = c.post(f"/sessions/{session}/steps", json={"inputs": [[0] * 4, [3e38] * 4]})
        assert c.get(f"/sessions/{session}/state").json() == before
    assert (refused.status_code, refused.json()["code"]) == (422, "non_finite_output")


def test_volatile_session_of_a_killed_server_is_gone(tiny, data):
    arguments = ["--durability", "none"]
    with running_server(*arguments, data=data, checkpoints=tiny.parent) as server:
        session = httpx.post(f"{server.url}/sessions", json={"model": "tiny"}).json()["id"]
        httpx.post(f"{server.url}/sessions/{session}/steps", json={"inputs": [[0] * 4]}).raise_for_status()
        server.stop(signal.SIGKILL)
    with running_server(*arguments, data=data, checkpoints=tiny.parent) as server:
        gone = httpx.get(f"{server.url}/sessions/{session}")
        with connect(f"{server.socket_url}/sessions/{session}/stream") as stream:
            message = json.loads(stream.recv())
    assert (gone.status_code, gone.json()["reason"]) == (410, "lost in a restart")
    assert message["code"] == "session_gone"


def test_full_queue_is_answered_with_retry_after(data, few):
    with running_server("--max-queue", "1", data=data, checkpoints=few) as server:
        body = SLOW | {"inputs": [[0.0] * 10] * 5000}
        first = threading.Thread(target=lambda: httpx.post(f"{server.url}/infer", json=body, timeout=60))
        first.start()
        wait_for_sequences(server, 1)
        refused = httpx.post(f"{server.url}/infer", json=body | {"inputs": [[0.0] * 10]})
        first.join()
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "queue_full", "1")


def test_interrupt_ends_quietly(tiny, data):
    with running_server(data=data, checkpoints=tiny.parent, fresh=True) as server:
        assert server.stop(signal.SIGINT) == 130
    assert "Traceback" not in server.log


def test_second_interrupt_stops_at_once(data, few):
    with running_server("--max-steps", "100000", data=data, checkpoints=few) as server:
        body = SLOW | {"inputs": [[0.0] * 10] * 60_000}
        asking = threading.Thread(target=lambda: httpx.post(f"{server.url}/infer", json=body, timeout=60))
        asking.start()
        wait_for_sequences(server, 1)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        began = time.monotonic()
        server.stop(signal.SIGINT)
        assert time.monotonic() - began < 15, "the default shutdown_timeout is 20 s"
        asking.join()


def test_delete_during_a_stop_is_carried_out(data, few):
    answers: dict[str, int] = {}

    def step(url: str) -> None:
        steps = {"inputs": [[0.0] * 10] * 5000}
        answers["step"] = httpx.post(f"{url}/steps", json=steps, timeout=60).status_code

    def delete(url: str) -> None:
        answers["delete"] = httpx.delete(url, timeout=60).status_code

    with running_server(data=data, checkpoints=few) as server:
        opened = httpx.post(f"{server.url}/sessions", json=SLOW).json()
        jobs = [threading.Thread(target=job, args=[f"{server.url}/sessions/{opened['id']}"]) for job in (step, delete)]
        for number, job in enumerate(jobs):
            job.start()
            wait_for_sequences(server, number + 1)
        server.stop(signal.SIGTERM)
        for job in jobs:
            job.join()
    assert answers == {"step": 200, "delete": 204}


def test_stop_signal_finishes_accepted_requests(data, few):
    answers: list[httpx.Response] = []
    with running_server(data=data, checkpoints=few, fresh=True) as server:
        body = SLOW | {"inputs": [[0.0] * 10] * 5000}
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{server.url}/infer", json=body, timeout=60))
        )
        with connect(f"{server.socket_url}/stream?model=ntm-copy") as stream:
            stream.recv()
            asking.start()
            wait_for_sequences(server, 1)
            assert server.stop(signal.SIGTERM) in STOPPED
            with pytest.raises(ConnectionClosed):
                stream.recv()
            assert stream.close_code == 1012
        asking.join()
    assert (answers[0].status_code, answers[0].json()["steps"]) == (200, 5000)
    assert "Traceback" not in server.log


def test_stop_signal_answers_after_the_shutdown_timeout(data, few):
    answers: list[httpx.Response] = []
    with running_server("--shutdown-timeout", "0.5", "--max-steps", "100000", data=data, checkpoints=few) as server:
        body = SLOW | {"inputs": [[0.0] * 10] * 60_000}
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{server.url}/infer", json=body, timeout=60))
        )
        asking.start()
        wait_for_sequences(server, 1)
        assert server.stop(signal.SIGTERM) in STOPPED
        asking.join()
    assert (answers[0].status_code, answers[0].json()["code"]) == (503, "shutting_down")
    assert "Traceback" not in server.log


def test_draining_server_is_not_ready_and_serves(data, few):
    with (
        running_server("--drain-seconds", "1", data=data, checkpoints=few) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        opened = client.post("/sessions", json={"model": "dnc-copy"}).json()
        server.process.send_signal(signal.SIGTERM)
        while client.get("/readyz").status_code == 200:
            time.sleep(0.01)
        assert client.get("/readyz").json()["code"] == "shutting_down"
        assert httpx.post(f"{server.url}/sessions/{opened['id']}/steps", json=STEP).status_code == 200
        assert server.process.wait(timeout=30) in STOPPED


def test_draining_server_listens_until_its_requests_are_answered(data, few):
    answers: list[int] = []
    body = SLOW | {"inputs": [[0.0] * 10] * 5000}
    with running_server("--drain-seconds", "0.01", data=data, checkpoints=few) as server:
        infer = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{server.url}/infer", json=body, timeout=60).status_code)
        )
        infer.start()
        wait_for_sequences(server, 1)
        server.process.send_signal(signal.SIGTERM)
        while "draining" not in server.log:
            time.sleep(0.01)
        time.sleep(0.1)
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert not answers
        infer.join()
        assert server.process.wait(timeout=30) in STOPPED
    assert answers == [200]
