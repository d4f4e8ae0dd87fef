"""Every model at home: the page opens a sample of its task, and shows what the task is about."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.app.browsing import canvas, hover_cell, open_inspector, open_page, turn
from tests.app.checkpoints import KINDS, make_task_checkpoint
from tests.app.harness import Server, running_server
from training.tasks import Task, build_task

MAPS = {"label_digits": 3, "nodes": 6, "neighbours": 2, "moves": 3, "queries": 1}

MODELS: dict[str, tuple[Task, dict[str, Any]]] = {
    "copy": (build_task({"name": "copy", "bits": 3, "length": [2, 4]}), KINDS["dnc"]),
    "grams": (build_task({"name": "ngrams", "order": 3, "length": 20}), KINDS["rnn"]),
    "ways": (build_task({"name": "graph-traversal", **MAPS}), KINDS["dnc"]),
    "family": (build_task({"name": "family-tree", "people": 10, "queries": 1, "planning": 0}), KINDS["rnn"]),
}

SAMPLE = "async query => (await fetch(`models/${query}`)).json()"

OPTIMUM = """async ({ bits, order }) => {
    const { taskOf } = await import("/static/tasks.js");
    return taskOf({ task: { name: "ngrams", order } }).encode(bits).optimum;
}"""

VERDICT = """async ({ sequence, outputs, words }) => {
    const { verdictOf } = await import("/static/answers.js");
    const model = { output_activation: "softmax", output_groups: 1, output_at: "every-step" };
    const task = { isStory: true, classes: words };
    return verdictOf({ model, task, sequence, outputs, done: outputs.length, isDone: true }).textContent;
}"""

TICKS = """async ({ labels, width, areWords }) => {
    const { timeTicks } = await import("/static/axis.js");
    const ticks = timeTicks({ labels, length: labels.length, areWords }, width);
    return ticks.map(node => [node.textContent, node.className]);
}"""


@pytest.fixture(scope="module")
def home_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("homes")
    for name, (task, config) in MODELS.items():
        make_task_checkpoint(root / "checkpoints" / name, task, config)
    with running_server("--backend", "torch", data=root / "data", checkpoints=root / "checkpoints") as server:
        yield server


@pytest.fixture(scope="module")
def tab(browser: Browser, home_server: Server) -> Iterator[Page]:
    with open_page(browser, home_server.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    with turn(tab) as page:
        yield page


def test_another_seed_draws_another_sample_of_the_same_sizes(page: Page) -> None:
    open_inspector(page, "copy&length=4")
    expect(page.locator("#verdict")).to_contain_text("of 12")
    expect(page.locator("#seed")).to_have_value("0")
    page.click("#another")
    expect(page.locator("#seed")).not_to_have_value("0")
    expect(page.locator("#length")).to_have_value("4")
    expect(page.locator("#verdict")).to_contain_text("of 12")


def test_changed_size_draws_a_sample_without_blank_vectors(page: Page) -> None:
    open_inspector(page, "copy&seed=3")
    page.fill("#length", "120")
    page.locator("#length").blur()
    expect(page.locator("#verdict")).to_contain_text("of 360")
    sample = page.evaluate(SAMPLE, "copy/sample?seed=3&length=120")
    hover_cell(page, "target", column=122, row=0)
    expect(page.locator("#readout")).to_have_text(f"channel 0, time 122: {sample['targets'][122][0]:.3f}")
    assert any(vector != [0, 0, 0] for vector in sample["targets"][-20:])


def test_too_few_slots_are_said_before_the_run_and_taken(page: Page) -> None:
    open_inspector(page, "copy&length=4")
    expect(page.locator("#fit")).to_be_empty()
    page.fill("#memory-size", "3")
    expect(page.locator("#fit")).to_have_text("too few for 4 vectors")
    page.click("#enough")
    expect(page.locator("#fit")).to_be_empty()
    expect(page.locator("#memory-size")).to_have_value("4")
    expect(page.locator("#enough")).to_be_hidden()


def test_drawing_begins_with_the_sample_and_is_marked(page: Page) -> None:
    open_inspector(page, "copy&length=2")
    page.click("#edit")
    expect(canvas(page, "drawing")).to_have_js_property("width", 2)
    expect(page.locator("#origin")).to_be_empty()
    canvas(page, "drawing").click()
    expect(page.locator("#origin")).to_have_text("Changed by hand")
    page.click("#another")
    expect(page.locator("#origin")).to_be_empty()


def test_optimum_of_n_grams_is_that_of_the_server(page: Page) -> None:
    open_inspector(page, "grams")
    sample = page.evaluate(SAMPLE, "grams/sample?seed=5")
    assert page.evaluate(OPTIMUM, {"bits": sample["pattern"], "order": 3}) == sample["optimum"]
    expect(page.locator("#verdict")).to_contain_text("nats for 18 bits")
    expect(page.locator("#verdict")).to_contain_text("above the optimum")
    expect(canvas(page, "prediction")).to_be_visible()


def test_edges_of_a_graph_appear_as_they_are_shown(page: Page) -> None:
    open_inspector(page, "ways&step=4")
    scene = page.locator(".scene")
    expect(scene.locator(".edge.shown")).to_have_count(5)
    expect(scene.locator(".edge.now")).to_have_attribute("data-step", "4")
    page.keyboard.press("End")
    expect(scene.locator(".edge.shown")).to_have_count(12)
    expect(scene.locator(".hop.wrong, .hop.due").first).to_be_attached()
    page.get_by_role("button", name="Links").click()
    expect(scene).to_be_hidden()


def test_edges_of_a_graph_are_walked_by_keys(page: Page) -> None:
    open_inspector(page, "ways&step=4")
    sample = page.evaluate(SAMPLE, "ways/sample")
    nodes, edge = ([node["name"] for node in sample["graph"]["nodes"]], sample["graph"]["edges"][1])
    page.locator(".scene svg").focus()
    page.keyboard.press("ArrowRight")
    said = f"time 1: {nodes[edge['from']]} to {nodes[edge['to']]}: {edge['name']}"
    expect(page.locator("[aria-live=polite]", has_text=f"Graph, {said}")).to_be_attached()
    expect(page.locator("#readout")).to_have_text(said)
    assert page.locator(".scene .pointed, .edge[data-step='1']").evaluate_all(
        "([edge, mark]) => edge.getAttribute('d') === mark.getAttribute('d')"
    )
    for key in ("End", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#readout")).to_contain_text("said")
    expect(page.locator("#place")).to_have_text(f"step {len(sample['inputs']) - 1}")
    page.keyboard.press("t")
    expect(page.locator("#numbers-table tbody tr")).to_have_count(len(sample["inputs"]))


def test_graph_beside_a_branch_is_at_the_cursor(page: Page) -> None:
    open_inspector(page, "ways&step=4")
    seen = page.locator(".scene figcaption").text_content()
    page.click("#try")
    page.locator("#what-if select").first.select_option(index=1)
    page.get_by_role("button", name="Fork here").click()
    expect(page.locator("#branch")).to_be_visible()
    expect(page.locator(".scene .edge.now")).to_have_attribute("data-step", "4")
    expect(page.locator(".scene figcaption")).to_have_text(f"A: {seen}")


def test_underground_is_a_map_with_its_lines_and_stations(page: Page) -> None:
    open_inspector(page, "ways&map=london-zone-1&step=0")
    expect(page.locator(".scene figcaption")).to_have_text("Map: Moorgate → Barbican (Circle, west)")
    expect(page.locator(".scene .name.shown")).to_have_text(["Barbican", "Moorgate"])
    expect(page.locator("#fit")).to_contain_text("too few for 252 triples")
    places = page.locator(".scene circle").evaluate_all("all => all.map(one => `${one.cx.baseVal.value}`)")
    assert len(places) == 63
    assert len(set(places)) > 50


def test_children_of_a_family_stand_below_their_parents(page: Page) -> None:
    open_inspector(page, "family")
    places = page.evaluate(
        """async () => {
            const { graph } = await (await fetch("models/family/sample")).json();
            const places = (await import("/static/layouts.js")).familyLayout(graph);
            const parents = graph.edges.filter(({ name }) => ["father", "mother"].includes(name));
            return { places, below: parents.every(({ from, to }) => places[from].y > places[to].y) };
        }"""
    )
    assert places["below"]
    assert len({(place["x"], place["y"]) for place in places["places"]}) == 10


def test_story_is_judged_with_question_answer_and_truth(page: Page) -> None:
    page.goto("/")
    words = ["-", "?", "where", "mary", "garden", "office"]
    labels = ["mary", "garden", ".", "where", "mary", "?", "-"]
    due, said = ([float(number == index) for number in range(6)] for index in (4, 5))
    sequence = {"labels": labels, "inputs": [[0]] * 7, "targets": [None] * 6 + [due], "asked": [6]}
    given = {"sequence": sequence, "outputs": [said] * 7, "words": words}
    assert page.evaluate(VERDICT, given) == "where mary ? office, probability 1.000, but the answer is garden"
    planned = ["mary", "garden", ".", "mary", "?", "?", "-"]
    thought = {**given, "sequence": {**sequence, "labels": planned}}
    assert page.evaluate(VERDICT, thought) == "mary ? office, probability 1.000, but the answer is garden"
    right = {**given, "outputs": [due] * 7}
    assert page.evaluate(VERDICT, right) == "where mary ? garden, probability 1.000, which is right"


def test_words_stand_slanted_on_an_axis_with_room(page: Page) -> None:
    page.goto("/")
    labels = ["mary", "went", "to", "the", "garden"]
    wide, narrow = (page.evaluate(TICKS, {"labels": labels, "width": width, "areWords": True}) for width in (60, 30))
    assert wide == [[label, "slanted"] for label in labels]
    assert [text for text, _ in narrow] == ["0"]
    thinned = page.evaluate(TICKS, {"labels": ["start", "1", "2", "3", "end"], "width": 100, "areWords": False})
    assert [text for text, _ in thinned] == ["1", "2", "3", "end"]
