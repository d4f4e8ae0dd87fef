import re
from collections.abc import Iterator

import msgpack
import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from tests.app.browsing import (
    Frames,
    canvas,
    cell_center,
    clear_drawing,
    draw,
    hover_cell,
    open_drawing,
    open_inspector,
    open_page,
    resize,
    run,
    size,
    turn,
)
from tests.app.checkpoints import make_token_checkpoint
from tests.app.harness import Server, running_server


@pytest.fixture(scope="module")
def tab(browser: Browser, server: Server) -> Iterator[Page]:
    with open_page(browser, server.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    with turn(tab) as page:
        yield page


@pytest.fixture
def own_page(browser: Browser, server: Server) -> Iterator[Page]:
    with open_page(browser, server.url) as page:
        yield page


def test_inspector_offers_every_model(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    served = [model["name"] for model in page.request.get("/models").json()]
    assert page.locator("#model option").all_inner_texts() == served


def test_address_without_a_model_shows_that_of_readme(page: Page) -> None:
    page.goto("/")
    expect(page).to_have_url(re.compile(r"\?model=dnc-copy&"))
    expect(page.locator("#verdict")).to_contain_text(" wrong bits of ")


def test_model_chosen_is_described_and_can_be_linked_to(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    page.select_option("#model", "lstm-copy")
    expect(page.locator("#card")).to_contain_text("275,464")
    expect(page).to_have_url("/?model=lstm-copy")


@pytest.mark.parametrize("model", ["dnc-copy", "ntm-copy"])
def test_random_sequence_is_copied_without_wrong_bits(page: Page, model: str) -> None:
    open_inspector(page, model)
    resize(page, "length", 12)
    frames = Frames(page)
    page.click("#another")
    frames.finish()
    expect(page.locator("#verdict")).to_have_text("0 wrong bits of 96")


def test_drawn_bits_are_sent_and_shown(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    clear_drawing(page, 5)
    draw(page, "drawing", column=2, row=6)
    sent, _ = run(page)
    ones = [(t, channel) for t, step in enumerate(sent["inputs"]) for channel, bit in enumerate(step) if bit]
    assert ones == [(0, 8), (3, 6), (6, 9)]
    hover_cell(page, "input", column=3, row=6)
    expect(page.locator("#readout")).to_have_text("channel 6, time 3: 1.000")


def test_drag_draws_every_cell_on_its_way(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    clear_drawing(page, 3)
    drawing = canvas(page, "drawing")
    drawing.drag_to(
        drawing,
        source_position=cell_center(drawing, column=0, row=1),
        target_position=cell_center(drawing, column=2, row=1),
    )
    sent, _ = run(page)
    assert [step[1] for step in sent["inputs"][1:4]] == [1, 1, 1]


def test_weightings_shown_are_those_of_the_answer(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    _, answer = run(page)
    weightings = answer["trace"]["write_weights"]
    assert size(canvas(page, "write_weights.0")) == (len(weightings), 32)
    hover_cell(page, "write_weights.0", column=7, row=5)
    expect(page.locator("#readout")).to_have_text(f"location 5, time 7: {weightings[7][0][5]:.3f}")


def test_memory_is_shown_slot_by_word(page: Page) -> None:
    open_inspector(page, "ntm-copy")
    assert size(canvas(page, "memory")) == (20, 128)


def test_memory_size_asked_for_is_that_of_the_run(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    expect(page.locator("#memory-size")).to_have_attribute("placeholder", "32")
    page.fill("#memory-size", "70")
    expect(page.locator("#results")).to_have_class("stale")
    _, answer = run(page)
    assert len(answer["trace"]["write_weights"][0][0]) == 70
    assert size(canvas(page, "memory")) == (16, 70)
    page.fill("#memory-size", "")
    run(page)
    assert size(canvas(page, "memory")) == (16, 32)


def test_unavailable_memory_size_is_refused_with_the_limit(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    page.fill("#memory-size", "9000")
    page.click("#run")
    expect(page.locator("#error")).to_contain_text("memory_size 9000 is not available")
    expect(page.locator("#error")).to_contain_text("Expected at most 2037, got 9000.")


def test_memory_size_is_offered_only_for_models_with_memory(page: Page) -> None:
    open_inspector(page, "ntm-copy")
    page.fill("#memory-size", "50")
    page.select_option("#model", "lstm-copy")
    expect(page.locator("#card")).to_contain_text("none of its own")
    expect(page.locator("#memory-size")).to_be_hidden()
    page.select_option("#model", "ntm-copy")
    expect(page.locator("#memory-size")).to_have_attribute("placeholder", "128")
    expect(page.locator("#memory-size")).to_have_value("")


def test_lstm_shows_no_weightings(page: Page) -> None:
    open_inspector(page, "lstm-copy")
    expect(page.locator("#results")).to_contain_text("no memory to look into")
    names = page.locator("#results canvas[data-name]").evaluate_all("all => all.map(canvas => canvas.dataset.name)")
    assert names == ["input", "target", "output"]


def test_changed_sequence_is_marked_as_not_run(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    open_drawing(page)
    page.click("#clear")
    expect(page.locator("#results")).to_have_class("stale")
    run(page)
    expect(page.locator("#results")).not_to_have_class("stale")


def test_unknown_model_in_the_address_is_refused_with_known_ones(page: Page) -> None:
    page.goto("/?model=nonesuch")
    expect(page.locator("#error")).to_contain_text("nonesuch")
    expect(page.locator("#error")).to_contain_text("dnc-copy")


def test_refused_run_says_why_and_leaves_no_session(own_page: Page) -> None:
    def refuse(socket: WebSocketRoute) -> None:
        problem = {"title": "The step failed", "status": 500, "code": "step_failed", "detail": "nothing was changed"}
        socket.on_message(lambda _: socket.send(msgpack.packb({"type": "error", **problem})))
        socket.send(msgpack.packb({"type": "session", "step": 0, "seq": None}))

    own_page.route_web_socket("**/stream", refuse)
    with own_page.expect_response(lambda response: response.request.method == "DELETE") as deleted:
        own_page.goto("/?model=dnc-copy")
    assert deleted.value.status == 204
    expect(own_page.locator("#error")).to_contain_text("The step failed: nothing was changed")
    expect(own_page.locator("#results")).to_be_hidden()


def test_inspector_logs_no_errors_with_any_model(own_page: Page) -> None:
    errors: list[str] = []
    own_page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    own_page.on("pageerror", lambda error: errors.append(str(error)))
    open_inspector(own_page, "dnc-copy")
    for model in ["ntm-copy", "lstm-copy", "dnc-copy"]:
        frames = Frames(own_page)
        own_page.select_option("#model", model)
        assert frames.finish()
    assert errors == []


@pytest.fixture(scope="module")
def token_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("tokens")
    make_token_checkpoint(root / "checkpoints" / "sentence", exported=False, output_at="last-step")
    make_token_checkpoint(root / "checkpoints" / "words", exported=False)
    with running_server("--backend", "torch", data=root / "data", checkpoints=root / "checkpoints") as server:
        yield server


@pytest.fixture
def token_page(browser: Browser, token_server: Server) -> Iterator[Page]:
    with open_page(browser, token_server.url) as page:
        yield page


def test_tokens_written_are_sent_and_their_class_shown(token_page: Page) -> None:
    errors: list[str] = []
    token_page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    token_page.on("pageerror", lambda error: errors.append(str(error)))
    open_inspector(token_page, "sentence")
    open_drawing(token_page)
    token_page.fill("#tokens", "3, 0 6\n6 1")
    sent, answer = run(token_page)
    assert sent["inputs"] == [[3], [0], [6], [6], [1]]
    last = answer["outputs"][-1]
    verdict = f"Class {last.index(max(last))}, probability {max(last):.3f}"
    expect(token_page.locator("#verdict")).to_have_text(verdict)
    assert size(canvas(token_page, "output")) == (5, 3)
    hover_cell(token_page, "input", column=2, row=0)
    expect(token_page.locator("#readout")).to_have_text("token 0, time 2: 6")
    assert errors == []


def test_random_tokens_are_of_the_vocabulary(token_page: Page) -> None:
    open_inspector(token_page, "words")
    sent, _ = resize(token_page, "length", 40)
    assert len(sent["inputs"]) == 40
    assert {token for step in sent["inputs"] for token in step} <= set(range(7))
    expect(token_page.locator("#verdict")).to_have_text("No target to compare with")


@pytest.mark.parametrize(("written", "place"), [("1 2 7", "inputs[2][0]"), ("1 b", "inputs[1][0]"), ("", "inputs")])
def test_what_is_no_token_is_refused_with_what_is(token_page: Page, written: str, place: str) -> None:
    open_inspector(token_page, "sentence")
    open_drawing(token_page)
    token_page.fill("#tokens", written)
    token_page.click("#run")
    expect(token_page.locator("#error")).to_contain_text(f"{place}: expected")
    expect(token_page.locator("#results")).to_be_hidden()
