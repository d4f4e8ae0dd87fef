"""What the page says that memory does: reads tied to writes, the life of a slot, and the equations of a step."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, expect

from models.registry import build, model_config
from tests.app.browsing import canvas, cell_center, hover_cell, open_inspector, open_page, size, turn
from tests.app.harness import CHECKPOINTS, Server, running_server
from training.checkpoint import save_model

SIZES = {"input_size": 4, "output_size": 2, "memory_size": 8, "word_size": 5, "read_heads": 2, "write_heads": 2}
CONTROLLER = {"kind": "lstm", "hidden_size": 8}
VARIANTS: dict[str, dict[str, Any]] = {
    "dnc-plain": {},
    "dnc-improved": {"deallocation": True, "masking": True, "link_sharpening": True, "look_up_scaling": True},
    "dnc-unlinked": {"links": "none", "strength": "softplus"},
    "dnc-sparse": {"links": "sparse", "links_per_slot": 3},
    "ntm-paper": {"look_up_scaling": True},
    "ntm-pytorch": {"style": "pytorch-ntm", "memory_start": "random", "weights_start": "random"},
    "ntm-in-turn": {"order": "in-turn", "programs": 3},
    "ntm-lasagne": {"style": "ntm-lasagne", "order": "before-controller", "memory_start": "random"},
}

STEPPED = """async name => {
    const load = file => import(new URL(`static/${file}.js`, document.baseURI));
    const [{ describeModel }, { Run }, { LiveSession }, { shownTraces, shownLeaves }] =
        await Promise.all(["api", "run", "session", "plots"].map(load));
    const model = await describeModel(name);
    const vector = step => [0, 5, 10, 15].map(shift => 2 * Math.sin(3 * step + shift));
    const inputs = Array.from({ length: 12 }, (_, step) => vector(step));
    const memorySize = model.look_up_scaling ? 3 * model.memory_size : undefined;
    const session = await LiveSession.open(model, { memorySize });
    const first = await session.first(shownLeaves(model));
    const run = new Run(model, {}, { inputs, targets: inputs.map(() => null) }, { memorySize, first });
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

DNC_LINES = [
    "retention",
    "usage",
    "content",
    "allocation",
    "write weighting",
    "location 3",
    "read weighting",
    "read vector",
]
NTM_LINES = ["content", "interpolated", "shifted", "read vector", "location 3"]
ALONG = ["forward 0", "forward 1", "backward 0", "backward 1"]
LINES = {
    "dnc-plain": [*DNC_LINES, "precedence", "links to 3", *ALONG],
    "dnc-improved": [*DNC_LINES, "precedence", "links to 3"],
    "dnc-unlinked": DNC_LINES,
    "dnc-sparse": DNC_LINES,
    "ntm-paper": [*NTM_LINES, "weighting"],
    "ntm-pytorch": [*NTM_LINES, "weighting"],
    "ntm-in-turn": [*NTM_LINES, "weighting"],
    "ntm-lasagne": [*NTM_LINES, "weighting of the next step"],
}
"""Values whose equations the page can fill with numbers."""


TEXTS = """() => [
    ...document.body.innerText.split("\\n"),
    ...[...document.querySelectorAll("[aria-label], [title]")].flatMap(node => `${node.ariaLabel}\\n${node.title}`),
]"""
"""All that is read on a page, and what only a screen reader says."""


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
    page.goto("/?model=lstm-copy")
    page.evaluate(STEPPED, name)
    worst = page.evaluate(RECOMPOSED)
    assert {key.partition(": ")[2].removeprefix("order of writing: ") for key in worst} == set(LINES[name])
    assert {key: error for key, error in worst.items() if error > 1e-4} == {}


REPLAYED = """async names => {
    const load = file => import(new URL(`static/${file}.js`, document.baseURI));
    const [{ describeModel, modelSample, sessionState }, { Run }, { LiveSession }, { shownTraces, shownLeaves }] =
        await Promise.all(["api", "run", "session", "plots"].map(load));
    const worst = {};
    for (const name of names) {
        const model = await describeModel(name);
        const inputs = (await modelSample(name)).inputs.slice(0, 60);
        const session = await LiveSession.open(model, {});
        const run = new Run(model, {}, { inputs, targets: [] }, { first: await session.first(shownLeaves(model)) });
        await session.step(inputs, shownTraces(model), answer => run.take(answer));
        for (const step of [inputs.length, 1, Math.ceil(inputs.length / 2)]) {
            const state = await sessionState(session.id, run.links ? ["memory", "link"] : ["memory"], step);
            const replayed = { memory: [run.memory.at(step)], link: (run.links ?? []).map(links => links.at(step)) };
            for (const [leaf, values] of Object.entries(state)) {
                const size = values.flat(3).length / replayed[leaf].length;
                const shown = replayed[leaf].flatMap(part => [...part.subarray(0, size)]);
                const errors = values.flat(3).map((value, at) => Math.abs(value - shown[at]));
                worst[`${name} ${leaf}`] = Math.max(worst[`${name} ${leaf}`] ?? 0, ...errors);
            }
        }
        await session.end();
    }
    return worst;
}"""
"""Run samples of models; return the largest difference of memory and links from those of the server."""


def test_memory_replayed_is_that_of_the_server(page: Page) -> None:
    page.goto("/?model=lstm-copy")
    worst = page.evaluate(REPLAYED, list(VARIANTS))
    assert {key.split()[0] for key in worst} == set(VARIANTS)
    assert {key: error for key, error in worst.items() if not error < 1e-4} == {}


def test_memory_of_shipped_models_is_replayed_exactly(browser: Browser, server: Server) -> None:
    names = [path.name for path in CHECKPOINTS.iterdir() if path.name.startswith(("dnc", "ntm"))]
    with open_page(browser, server.url) as page:
        page.goto("/?model=lstm-copy")
        worst = page.evaluate(REPLAYED, names)
    assert {key.split()[0] for key in worst} == set(names)
    assert {key: error for key, error in worst.items() if not error < 1e-4} == {}


MADE = """const load = file => import(`/static/${file}.js`);
const [{ Run }, { Ties, lifeOf }, { lifeText, overview }] = await Promise.all(["run", "ties", "account"].map(load));
const inputs = trace.write_weights.map((_, step) => [step, 1]);
const card = { kind: "dnc", read_heads: 1, write_heads: 1, memory_size: 2, state: {}, trace: {}, ...model };
for (const [name, steps] of Object.entries(trace)) card.trace[name] ??= [1, steps[0].length];
const run = new Run(card, {}, { inputs, targets: [] });
const numbers = Object.entries(trace).map(([name, steps]) => [name, steps.map(values => Float32Array.from(values))]);
run.take({ outputs: inputs, trace: Object.fromEntries(numbers) });
const ties = new Ties(run);
"""
"""Make a run of a `model` with two slots from a `trace`, name -> the values of each step."""

WRITES = {
    "write_weights": [[1, 0], [0, 1], [0.8, 0], [0, 0]],
    "write_vectors": [[2, 0], [1, 1], [0, 1], [0, 0]],
    "erase_vectors": [[1, 1], [1, 1], [0.5, 0.5], [0, 0]],
    "read_weights": [[0, 0], [0.9, 0.05], [0.9, 0], [0, 1]],
}
"""Step 2 writes again to slot 0, and leaves 0.6 of what step 0 wrote there."""


def evaluated(page: Page, body: str, steps: dict[str, list[list[float]]], **model: Any) -> Any:
    """Evaluate JavaScript on a handmade run; see MADE."""
    page.goto("/static/icon.svg")
    return page.evaluate(f"async ([model, trace]) => {{ {MADE} {body} }}", [model, steps])


@pytest.mark.parametrize(("kind", "shares"), [("dnc", {2: 0.4, 0: 0.6}), ("ntm", {0: 1})])
def test_read_is_tied_to_writes_left_in_its_slot(page: Page, kind: str, shares: dict[int, float]) -> None:
    trace = WRITES if kind == "dnc" else {**WRITES, "add_vectors": WRITES["write_vectors"]}
    sources = evaluated(page, "return ties.sources(2, 0);", trace, kind=kind)
    assert {source["step"]: round(source["share"], 3) for source in sources} == shares


def test_read_in_turn_finds_the_write_of_an_earlier_head(page: Page) -> None:
    weights = {"write_weights": [[1, 0, 0, 1]], "read_weights": [[0, 1, 1, 0]]}
    trace = {**weights, "add_vectors": [[1, 1, 1, 1]], "erase_vectors": [[1, 1, 1, 1]]}
    model = {"kind": "ntm", "order": "in-turn", "read_heads": 2, "write_heads": 2}
    body = "return ties.reads(0).map(({ head, sources }) => [head, ...sources.map(({ step }) => step)]);"
    found = evaluated(page, body, trace, **model, trace={name: [2, 2] for name in trace})
    assert found == [[0], [1, 0]]


def test_write_is_tied_to_the_reads_that_find_it(page: Page) -> None:
    reads = evaluated(page, "return [ties.readers(0, 0), ties.readers(1, 1)];", WRITES)
    assert [[read["step"] for read in one] for one in reads] == [[1, 2], [3]]


def test_slot_has_writes_reads_and_releases_as_life(page: Page) -> None:
    trace = {**WRITES, "usage": [[0, 0], [0.9, 0], [0.1, 0.9], [0.8, 0.9]]}
    life = evaluated(page, "return lifeText(lifeOf(run, 0));", trace)
    assert life == "written at 0, 2 · read at 1 to 2 · freed at 2"


def test_past_that_is_not_kept_is_named_so(page: Page) -> None:
    later = MADE.replace("targets: [] });", "targets: [] }, { from: 5, first: { memory: [[0, 3], [0, 0]] } });")
    body = """const { readText } = await load("account");
        return [ties.read(0, 0, 0), ties.read(3, 0, 1)].map(read => readText(run, read));"""
    trace = {
        **WRITES,
        "write_weights": [[0, 0], [0, 1], [0, 0], [0, 0]],
        "read_weights": [[1, 0], [0, 0], [0, 0], [0, 1]],
    }
    page.goto("/static/icon.svg")
    assert page.evaluate(f"async ([model, trace]) => {{ {later} {body} }}", [{}, trace]) == [
        "read from location 0 (1.00), there before step 5",
        "read from location 1 (1.00), written at step 6: the vector 11",
    ]


def test_recording_of_few_traces_shows_those(page: Page) -> None:
    trace = {name: WRITES[name] for name in ("write_weights", "write_vectors")}
    body = """const { equationsOf } = await load("equations");
        const lines = equationsOf(run, 1).flatMap(group => group.lines.map(line => line.name));
        return [overview(run, ties, 1), lines, lifeText(lifeOf(run, 0)), ties.readers(1, 1)];"""
    words = ["The write head wrote 1.00 into location 1."]
    assert evaluated(page, body, trace) == [
        words,
        ["write weighting", "write vector"],
        "written at 0, 2 · never read",
        [],
    ]


def test_overview_says_how_a_slot_was_found(page: Page) -> None:
    trace = {
        **{name: steps[:2] for name, steps in WRITES.items()},
        "write_gate": [[1], [1]],
        "allocation_gate": [[1], [0.9]],
        "allocation_weights": [[1, 0], [0, 1]],
        "read_modes": [[0, 0, 1], [0, 1, 0]],
        "read_content_weights": [[0.5, 0.5], [0.5, 0.5]],
        "forward_weights": [[0, 0], [0.9, 0.05]],
        "backward_weights": [[0, 0], [0, 0]],
    }
    assert evaluated(page, "return overview(run, ties, 1);", trace) == [
        "The write head wrote 1.00 into location 1, newly allocated.",
        "The read head read 0.90 from location 0 by going forward from location 0, written at step 0.",
    ]


def brightest(page: Page, name: str, step: int) -> int:
    """Return the row of the largest weight of a step, as it is drawn."""
    row: int = canvas(page, name).evaluate(
        """(canvas, step) => {
            const { data } = canvas.getContext("2d").getImageData(step, 0, 1, canvas.height);
            const rows = [...Array(canvas.height).keys()];
            return rows.reduce((best, row) => (data[4 * row] > data[4 * best] ? row : best));
        }""",
        step,
    )
    return row


def pointed_arc(page: Page) -> list[dict[str, float]]:
    """Return the places of the ends of the arc that is pointed at, in the window."""
    ends: list[dict[str, float]] = page.evaluate(
        """() => [...document.querySelectorAll(".pointed-arcs g:not([style*=none]) circle")].map(circle => {
            const { x, y, width, height } = circle.getBoundingClientRect();
            return { x: x + width / 2, y: y + height / 2 };
        })"""
    )
    return ends


def place(page: Page, name: str, step: int, row: int) -> dict[str, float]:
    box, center = canvas(page, name).bounding_box(), cell_center(canvas(page, name), step, row)
    assert box
    return {"x": box["x"] + center["x"], "y": box["y"] + center["y"]}


def test_read_pointed_at_leads_to_its_write(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    slot = brightest(page, "read_weights.0", 28)
    hover_cell(page, "read_weights.0", column=28, row=slot)
    expect(page.locator("#readout")).to_have_text(
        re.compile(rf"read from location {slot} \(0\.\d\d\), written at step 9: the vector [01]{{10}}")
    )
    ends = [place(page, "read_weights.0", 28, slot), place(page, "write_weights.0", 9, slot)]
    assert pointed_arc(page) == [pytest.approx(end, abs=1) for end in ends]


def test_write_pointed_at_names_its_reads(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    slot = brightest(page, "write_weights.0", 9)
    hover_cell(page, "write_weights.0", column=9, row=slot)
    expect(page.locator("#readout")).to_have_text(
        re.compile(rf"written to location {slot} \(\d\.\d\d\) at step 9: the vector [01]{{10}}; read at 28 \(0\.\d\d\)")
    )


def test_arcs_move_with_the_cursor(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    start = page.locator(".cursor-arcs .start").first
    before = float(start.get_attribute("cx") or 0)
    page.keyboard.press("ArrowRight")
    expect(start).not_to_have_attribute("cx", f"{before:.1f}")
    first, second = (place(page, "read_weights.0", step, 0)["x"] for step in (0, 1))
    assert float(start.get_attribute("cx") or 0) == pytest.approx(before + second - first, abs=0.2)


def test_slot_clicked_stays_in_view_until_escape(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    slot = brightest(page, "write_weights.0", 9)
    canvas(page, "now-write").click(position=cell_center(canvas(page, "now-write"), column=0, row=slot))
    page.mouse.move(0, 0)
    expect(page.locator("#life")).to_contain_text("written at 9 · read at 28 · never freed")
    expect(page.locator("#life input")).to_have_value(str(slot))
    lines = page.evaluate("[...document.querySelectorAll('.slots')].map(node => node.style.getPropertyValue('--slot'))")
    assert set(lines) == {str(slot)}
    assert len(lines) >= 8
    page.keyboard.press("Escape")
    expect(page.locator("#life")).to_contain_text("Point at a location")


def test_stored_programs_have_a_strip_of_their_shares(page: Page) -> None:
    open_inspector(page, "ntm-in-turn")
    _, rows = size(canvas(page, "program_weights"))
    assert rows == 3
    hover_cell(page, "program_weights", 2, 1)
    expect(page.locator("#readout")).to_contain_text("program 1")


def test_equations_stand_beside_the_stage(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    page.click("#explain")
    expect(page.locator(".overview p")).to_have_count(2)
    panels = page.locator(".panel:visible").all()
    edges = [box["x"] + box["width"] * side for box in map(Locator.bounding_box, panels) if box for side in (0, 1)]
    assert (len(edges), edges) == (6, sorted(edges))
    page.check("text=Formulas")
    expect(page.locator(".numbers").first).to_contain_text("=")
    page.check("text=In words")
    expect(page.locator(".equation-groups")).to_be_hidden()


def test_equations_of_a_model_without_memory_say_so(page: Page) -> None:
    open_inspector(page, "lstm-copy")
    page.click("#explain")
    expect(page.locator(".overview")).to_contain_text("This model has no memory to address")
    expect(page.locator("#life")).to_be_hidden()


@pytest.mark.parametrize("model", ["dnc-copy", "ntm-paper"])
def test_reader_hears_of_memory_locations_not_slots(page: Page, model: str) -> None:
    open_inspector(page, f"{model}&step=3")
    page.click("#explain")
    page.check("text=Formulas")
    page.click("#try")
    page.click("#about summary")
    texts = page.evaluate(TEXTS)
    page.goto("/learn")
    texts += page.evaluate(TEXTS)
    assert any("location" in text.lower() for text in texts)
    assert [text for text in texts if re.search(r"\bslots?\b", text, re.IGNORECASE)] == []
