"""What the page says that memory does: reads tied to writes, the life of a slot, and the equations of a step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page, expect

from models.registry import build, model_config
from tests.app.browsing import canvas, hover_cell, open_inspector, open_page, turn
from tests.app.harness import CHECKPOINTS, Server, running_server
from training.checkpoint import save_model

SIZES = {"input_size": 4, "output_size": 2, "memory_size": 8, "word_size": 5, "read_heads": 2, "write_heads": 2}
CONTROLLER = {"kind": "lstm", "hidden_size": 8}
VARIANTS: dict[str, dict[str, Any]] = {
    "dnc-plain": {},
    "dnc-improved": {"deallocation": True, "masking": True, "link_sharpening": True},
    "dnc-unlinked": {"links": "none", "strength": "softplus"},
    "ntm-paper": {},
    "ntm-pytorch": {"style": "pytorch-ntm", "memory_start": "random", "weights_start": "random"},
    "ntm-lasagne": {"style": "ntm-lasagne", "order": "before-controller", "memory_start": "random"},
}

STEPPED = """async name => {
    const load = file => import(new URL(`static/${file}.js`, document.baseURI));
    const [{ describeModel }, { Run }, { LiveSession }, { shownTraces, shownLeaves }] =
        await Promise.all(["api", "run", "session", "plots"].map(load));
    const model = await describeModel(name);
    const inputs = Array.from({ length: 12 }, (_, t) => Array.from({ length: 4 }, (_, i) => 2 * Math.sin(3 * t + 5 * i)));
    const session = await LiveSession.open(model, {});
    const first = await session.first(shownLeaves(model));
    const run = new Run(model, {}, { inputs, targets: inputs.map(() => null) }, { first });
    await session.step(inputs, shownTraces(model), answer => run.take(answer));
    window.run = run;
    await session.end();
}"""
"""Step a session of a model, as the page does, and keep the run."""

RECOMPOSED = """async () => {
    const { equationsOf } = await import(new URL("static/equations.js", document.baseURI));
    const worst = {};
    for (let step = 0; step < run.done; step++) {
        for (const { title, lines } of equationsOf(run, step, 3)) {
            for (const { name, values, at } of lines.filter(line => line.at)) {
                const key = `${title}: ${name}`;
                const errors = Array.from(values, (value, index) => Math.abs(value - at(index).value));
                worst[key] = Math.max(worst[key] ?? 0, ...errors);
            }
        }
    }
    return worst;
}"""
"""Return the largest difference between each value that was traced and the one that its equation gives."""

DNC_LINES = ["retention", "usage", "content", "allocation", "write weighting", "slot 3", "read weighting", "read vector"]
NTM_LINES = ["content", "interpolated", "shifted", "read vector", "slot 3"]
ALONG = ["forward 0", "forward 1", "backward 0", "backward 1"]
LINES = {
    "dnc-plain": [*DNC_LINES, "precedence", "links to 3", *ALONG],
    "dnc-improved": [*DNC_LINES, "precedence", "links to 3"],
    "dnc-unlinked": DNC_LINES,
    "ntm-paper": [*NTM_LINES, "weighting"],
    "ntm-pytorch": [*NTM_LINES, "weighting"],
    "ntm-lasagne": [*NTM_LINES, "weighting of the next step"],
}
"""Values whose equations the page can fill with numbers."""


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of models with random weights, and of the shipped ones of the copy task."""
    directory = tmp_path_factory.mktemp("variants")
    for name, config in VARIANTS.items():
        kind, values = name[:3], {**SIZES, "controller": CONTROLLER, **config}
        torch.manual_seed(1)
        model = build(kind, values)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 4
        save_model(directory / name, model, kind, model_config(kind, values), {"name": "none"}, {})
    for name in ("dnc-copy", "lstm-copy"):
        (directory / name).symlink_to(CHECKPOINTS / name)
    with running_server(data=tmp_path_factory.mktemp("served") / "data", checkpoints=directory) as server:
        yield server


@pytest.fixture(scope="module")
def tab(browser: Browser, variants: Server) -> Iterator[Page]:
    with open_page(browser, variants.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    with turn(tab) as page:
        yield page


@pytest.mark.parametrize("name", VARIANTS)
def test_equations_with_their_numbers_give_the_traced_values(page: Page, name: str) -> None:
    page.goto("/")
    page.evaluate(STEPPED, name)
    worst = page.evaluate(RECOMPOSED)
    assert {key.partition(": ")[2].removeprefix("order of writing: ") for key in worst} == set(LINES[name])
    assert {key: error for key, error in worst.items() if error > 1e-4} == {}
