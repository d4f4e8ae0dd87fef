"""A model of a user's own class at a real server, which has its graph and not its class."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, expect

from app.loading import _best_backend
from models.artefact import load
from models.contract import unroll
from models.manifest import ONNX_FILE, read_manifest
from models.registry import MODELS, register_model
from tests.app.browsing import open_inspector, open_page
from tests.app.checkpoints import make_checkpoint
from tests.app.harness import Server, running_server
from tests.models.broken import Leaky, LeakyConfig, Slots
from training.checkpoint import save_model
from training.export import export

OWN = {"leaky": (Leaky, LeakyConfig(4, 2)), "slots": (Slots, LeakyConfig(4, 2, memory_size=2))}
INPUTS = [[0.5, 1.0, 0.0, -1.0], [0.0, 0.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of classes that are registered no more, and one that comes with Engram."""
    root = tmp_path_factory.mktemp("own")
    make_checkpoint(root / "shipped")
    for kind, (made, config) in OWN.items():
        register_model(kind, LeakyConfig)(made)
        torch.manual_seed(1)
        save_model(root / kind, made(config), kind, config, {"name": "none"}, {})
        export(root / kind)
        del MODELS[kind]
    return root


@pytest.fixture(scope="module")
def own_server(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(data=tmp_path_factory.mktemp("server") / "data", checkpoints=checkpoints) as server:
        yield server


def expected(directory: Path, kind: str, memory_size: int | None = None) -> Any:
    """Return the outputs that torch computes of INPUTS: [T, O]."""
    register_model(kind, LeakyConfig)(OWN[kind][0])
    model, _ = load(directory / kind)
    del MODELS[kind]
    with torch.no_grad():
        outputs, _, _ = unroll(model, torch.tensor(INPUTS)[:, None], model.initial_state(1, memory_size))
    return outputs[:, 0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "memory_size"), [("leaky", None), ("slots", None), ("slots", 5)])
def test_session_of_an_own_model_gives_torchs_outputs(own_server, checkpoints, kind, memory_size):
    with httpx.Client(base_url=own_server.url, timeout=30) as client:
        opened = client.post("/sessions", json={"model": kind, "memory_size": memory_size})
        assert opened.status_code == 201, opened.text
        steps = f"/sessions/{opened.json()['id']}/steps"
        outputs = [client.post(steps, json={"inputs": [inputs]}).json()["outputs"][0] for inputs in INPUTS]
    np.testing.assert_allclose(outputs, expected(checkpoints, kind, memory_size), atol=1e-5)


@pytest.mark.slow
def test_card_of_an_own_model_has_no_controller(own_server):
    leaky, slots = (httpx.get(f"{own_server.url}/models/{kind}").json() for kind in ("leaky", "slots"))
    assert (leaky["kind"], leaky["controller"], leaky["memory_size"], leaky["backend"]) == ("leaky", None, None, "onnx")
    assert (leaky["state"], leaky["trace"]) == ({"h": [4]}, {"activity": [4]})
    assert (slots["memory_size"], slots["word_size"], slots["state"]) == (2, None, {"memory": [2, 4]})


@pytest.mark.slow
def test_page_of_an_own_model_draws_it(browser: Browser, own_server: Server) -> None:
    with open_page(browser, own_server.url) as page:
        open_inspector(page, "leaky")
        expect(page.locator("#card")).to_contain_text("LEAKY")
        expect(page.locator("#card")).not_to_contain_text("Controller")
        open_inspector(page, "slots")
        expect(page.locator("#card dl")).to_contain_text("2 locations")
        for unknown in ("null", "undefined"):
            expect(page.locator("#card")).not_to_contain_text(unknown)
        expect(page.locator('canvas[data-name="memory"]')).to_be_visible()


@pytest.mark.slow
@pytest.mark.parametrize(("kept", "backend"), [((ONNX_FILE,), "torch"), ((), "auto")])
def test_own_model_without_a_graph_names_the_remedy(checkpoints, tmp_path, data, kept, backend):
    root = tmp_path / "checkpoints"
    shutil.copytree(checkpoints, root)
    if ONNX_FILE not in kept:
        (root / "leaky" / ONNX_FILE).unlink()
    with running_server("--backend", backend, data=data, checkpoints=root) as server:
        failed = httpx.get(f"{server.url}/readyz").json()["failed"]
    message = f"{root / 'leaky'}: its model is of kind 'leaky', whose class a server does not have: it is served by "
    assert failed["leaky"].startswith(message)
    assert f"; engram export --models FILE {root / 'leaky'} writes it" in failed["leaky"]
    assert "leaky is not served: " in server.log


def test_own_model_is_left_to_onnx_beside_a_gpu(checkpoints):
    for name, backend in (("leaky", "onnx"), ("shipped", "fused")):
        assert _best_backend(checkpoints / name, read_manifest(checkpoints / name), "cuda") == backend
