"""The page takes another way at the cursor: it forks the session and shows both branches, or rewinds it."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.app.browsing import canvas, open_inspector, open_page, saved, size, turn, wait_until_idle
from tests.app.harness import Server

STEP = 6
"""Of the shipped model and its first sample: it hears the sixth of the vectors that it is to say again."""


@pytest.fixture(scope="module")
def tab(browser: Browser, server: Server) -> Iterator[Page]:
    with open_page(browser, server.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    with turn(tab) as page:
        yield page


def open_change(page: Page, model: str = "dnc-copy") -> None:
    """Open what can be changed at the step."""
    open_inspector(page, model)
    page.click("#try")
    page.locator("#position").fill(str(STEP))
    expect(page.locator("#what-if strong")).to_have_text(f"Heard at {STEP}")


def fork(page: Page, to: str = "**/fork") -> Any:
    """Press "Fork here"; return the description of the session that is opened for it, and, of a fork, `origin`."""
    with page.expect_response(to) as answer:
        page.click("text=Fork here")
    expect(page.locator("#branch")).to_be_visible()
    wait_until_idle(page)
    return answer.value.json() | {"origin": answer.value.url.split("/")[-2]}


def recorded_inputs(page: Page, session: str) -> list[list[float]]:
    lines = page.request.get(f"/sessions/{session}/recording").text().splitlines()
    return [json.loads(line)["inputs"] for line in lines]


def drawn(page: Page, name: str) -> Any:
    """Return the colours of a strip, as [rows, steps, red, green, blue and opacity]."""
    columns, rows = size(canvas(page, name))
    data = canvas(page, name).evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )
    return np.array(data).reshape(rows, columns, 4)


def test_shut_write_gate_changes_outputs_only_after_fork(page: Page) -> None:
    open_change(page)
    page.select_option("[aria-label='Write gate']", "shut")
    assert fork(page)["force"] == {"write_gate": [0.0]}
    run, branch = drawn(page, "output"), drawn(page, "b.output")
    assert (run[:, :STEP] == branch[:, :STEP]).all()
    assert (run[:, STEP:] != branch[:, STEP:]).any()
    assert (drawn(page, "b.write_weights.0")[:, STEP:, :3].max(axis=(0, 1)) < 10).all()
    expect(page.locator("#verdict")).to_have_text(
        re.compile(r"^A: 0 wrong bits of 144; B: [1-9]\d* wrong bits of 144, first at step \d\d$")
    )
    expect(page.locator("#branch")).to_contain_text(f"B: from step {STEP} on, write gate shut. Outputs differ at")
    label = page.locator(".differences").first.get_attribute("aria-label")
    assert label == f"Steps at which what is heard or written differs between A and B: {STEP} to 37"


def test_bit_changed_by_keys_is_what_the_server_got(page: Page) -> None:
    open_change(page)
    page.locator(".bit").first.focus()
    for key in ("ArrowRight", "ArrowRight", "Space"):
        page.keyboard.press(key)
    branch = fork(page)
    run, changed = (np.array(recorded_inputs(page, branch[session])) for session in ("origin", "id"))
    assert np.argwhere(run != changed).tolist() == [[STEP, 2]]
    expect(page.locator("#branch")).to_contain_text(f"B: at step {STEP}, channel 2 changed.")


def test_gate_of_one_head_leaves_the_others_free(page: Page) -> None:
    open_change(page, "ntm-copy")
    page.select_option("[aria-label='Interpolation gate of write head 0']", "by the weighting before")
    assert fork(page)["force"] == {"interpolation_gate": [None, 0.0]}


def test_branch_with_fewer_slots_begins_anew(page: Page) -> None:
    open_change(page)
    page.fill("#what-if input[type=number]", "4")
    branch = fork(page, "**/sessions")
    assert (branch["memory_size"], branch["step"]) == (4, 0)
    assert size(canvas(page, "b.write_weights.0")) == (38, 4)
    assert size(canvas(page, "b.memory"))[1] == 4
    page.check("input[value=difference]")
    assert size(canvas(page, "difference.read_weights.0")) == (38, 4)


def test_branch_is_shown_in_every_view(page: Page) -> None:
    open_change(page, "dnc-ngrams")
    page.select_option("[aria-label='Write gate']", "shut")
    fork(page)
    shown = {"both": "b.output", "a": "output", "b": "output", "difference": "difference.output"}
    for view, name in shown.items():
        page.check(f"input[value={view}]")
        expect(canvas(page, name)).to_have_count(1)
        assert canvas(page, "b.output").count() == (view == "both")


def test_tokens_have_both_runs_in_place_of_a_difference(page: Page) -> None:
    open_change(page, "gru-dyck")
    heard = page.locator("[aria-label='Word heard']")
    heard.select_option(index=(int(heard.input_value()) + 1) % 4)
    fork(page)
    page.check("input[value=difference]")
    expect(canvas(page, "difference.output")).to_have_count(1)
    assert (drawn(page, "input") != drawn(page, "b.input")).any(axis=(0, 2)).tolist() == [
        at == STEP for at in range(36)
    ]


def test_branch_is_in_all_that_is_exported(page: Page, tmp_path: Path) -> None:
    open_change(page)
    page.select_option("[aria-label='Write gate']", "shut")
    fork(page)
    figure = saved(page, "Figure", tmp_path)
    assert figure.name == "dnc-copy-seed-0-A-and-B.svg"
    assert f"Shown: A above B. B: from step {STEP} on, write gate shut." in figure.read_text()
    names, *rows = csv.reader(saved(page, "Table", tmp_path).read_text().splitlines())
    assert [row[0] for row in rows] == ["A"] * 38 + ["B"] * 38
    weights = np.array([row[names.index("write_weights 0") :][:32] for row in rows[38:]], float)
    assert weights[:STEP].sum(axis=1).min() > 0.9 > 0.01 > weights[STEP:].max()
    lines = [json.loads(line) for line in saved(page, "Recording of B", tmp_path).read_text().splitlines()]
    assert [line.get("force") for line in lines] == [None] * STEP + [{"write_gate": [0]}] * (38 - STEP)
    output = names.index("output 0")
    assert [line["outputs"] for line in lines] == np.array(
        [row[output : output + 8] for row in rows[38:]], float
    ).tolist()


def test_recording_of_a_branch_is_opened_as_one(page: Page, tmp_path: Path) -> None:
    open_change(page)
    page.select_option("[aria-label='Write gate']", "shut")
    fork(page)
    shown = drawn(page, "b.output")
    page.set_input_files("#recording-file", saved(page, "Recording of B", tmp_path))
    expect(page.locator("#provenance-text")).to_contain_text(
        f"It is of a branch: from step {STEP} on, write gate shut."
    )
    assert (drawn(page, "output") == shown).all()


def test_table_of_fewer_slots_keeps_heads_apart(page: Page, tmp_path: Path) -> None:
    open_change(page, "dnc-priority-sort")
    page.fill("#what-if input[placeholder='32']", "4")
    fork(page, "**/sessions")
    names, *rows = csv.reader(saved(page, "Table", tmp_path).read_text().splitlines())
    weights = [row[names.index("read_weights 0") :][:128] for row in rows]
    assert [bool(cell) for cell in weights[-1]] == ([True] * 4 + [False] * 28) * 4
    assert all(weights[0])


def test_memory_is_that_of_the_cursor_at_once(page: Page) -> None:
    open_inspector(page, f"dnc-copy&step={STEP}")
    shown = drawn(page, "memory")
    for key in ("ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    expect(page.locator("#place")).to_have_text(f"step {STEP}")
    assert (drawn(page, "memory") == shown).all()


def test_branch_dropped_has_its_session_ended(page: Page) -> None:
    open_change(page)
    page.select_option("[aria-label='Free gate']", "open")
    branch = fork(page)["id"]
    with page.expect_response(f"**/sessions/{branch}"):
        page.click("text=Drop the branch")
    assert page.request.get(f"/sessions/{branch}").status == 410
    expect(page.locator("#verdict")).to_have_text("0 wrong bits of 144")
    expect(page.locator("#branch")).to_be_hidden()
    expect(canvas(page, "b.output")).to_have_count(0)


def test_refused_branch_leaves_the_run_as_it_was(page: Page) -> None:
    open_change(page)
    before = drawn(page, "output")
    page.fill("#what-if input[type=number]", "100000000")
    page.click("text=Fork here")
    expect(page.locator("#error")).to_contain_text("memory_size")
    wait_until_idle(page)
    assert (drawn(page, "output") == before).all()
    expect(page.locator("#branch")).to_be_hidden()
    expect(page.locator("#verdict")).to_have_text("0 wrong bits of 144")
    page.keyboard.press("End")
    expect(page.locator("#results")).to_be_visible()


def test_link_to_a_branch_opens_both_and_back_works(page: Page) -> None:
    open_change(page)
    page.locator(".bit").nth(2).click()
    page.select_option("[aria-label='Write gate']", "shut")
    fork(page)
    link, said, shown = page.url, page.locator("#branch span").inner_text(), drawn(page, "b.output")
    page.click("#share summary")
    expect(page.locator("#share .note")).to_contain_text("The link opens both.")
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator("#branch span")).to_have_text(said)
    assert (drawn(page, "b.output") == shown).all()
    page.click("text=Drop the branch")
    expect(page).not_to_have_url(re.compile("fork"))
    page.go_back()
    expect(page).to_have_url(link)
    expect(page.locator("#branch span")).to_be_visible()
    expect(page.locator("#branch span")).to_have_text(said)
    page.go_forward()
    expect(page.locator("#branch")).to_be_hidden()


def test_link_has_the_slots_of_a_branch(page: Page) -> None:
    page.goto(f"/?model=dnc-copy&fork={STEP}&fork-slots=4")
    expect(page.locator("#branch")).to_contain_text("B: 4 locations in place of 32, from the beginning.")
    assert size(canvas(page, "b.write_weights.0")) == (38, 4)
    assert page.url.endswith(f"&fork={STEP}&fork-slots=4")


FAULTS = """async places => {
    const { changeOf } = await import("/static/branch-place.js");
    const run = { from: 5, length: 9, sequence: {}, model: { input_size: 2 } };
    const faultOf = place => { try { return changeOf(run, place); } catch (error) { return error.expected; } };
    return places.map(faultOf);
}"""


def test_branch_is_read_from_the_address_or_refused(page: Page) -> None:
    page.goto("/?model=lstm-copy")
    named = {"step": "6", "heard": "0_-1.5", "force": '{"write_gate": [0]}', "slots": "4"}
    others = [
        {"step": "14"},
        {"heard": "1_0_"},
        {"heard": "1"},
        {"force": "shut"},
        {"force": '{"a": 1}'},
        {"slots": "0"},
    ]
    change, *faults = page.evaluate(FAULTS, [named, *({**named, **other} for other in others)])
    assert change == {"step": 1, "vector": [0, -1.5], "force": {"write_gate": [0]}, "slots": 4}
    vector, gates = '2 numbers with "_" between them', 'gates as JSON, such as {"write_gate": [0]}'
    assert faults == ["a step from 5 to 13", vector, vector, gates, gates, "a whole number above 0"]


def test_refused_branch_of_a_link_leaves_the_run(page: Page) -> None:
    page.goto(f"/?model=dnc-copy&fork={STEP}&force=%7B%22write_gate%22%3A%5B7%5D%7D")
    expect(page.locator("#error")).to_contain_text("force.write_gate[0]")
    expect(page.locator("#verdict")).to_have_text("0 wrong bits of 144")
    expect(page.locator("#branch")).to_be_hidden()
    assert "fork" not in page.url


def open_own(page: Page) -> str:
    """Open the page with the cursor at the step; return the id of the session of its run."""
    with page.expect_response(lambda answer: answer.request.method == "POST") as opened:
        open_inspector(page, f"dnc-copy&step={STEP}")
    return opened.value.json()["id"]  # type: ignore[no-any-return]


def step_of(page: Page, session: str) -> int:
    return page.request.get(f"/sessions/{session}").json()["step"]  # type: ignore[no-any-return]


def test_run_goes_on_from_the_step_it_is_rewound_to(page: Page) -> None:
    session = open_own(page)
    before, inputs = drawn(page, "output"), recorded_inputs(page, session)
    page.keyboard.press("Backspace")
    expect(page.locator("#verdict")).to_have_text("Nothing is due yet")
    assert step_of(page, session) == STEP + 1
    assert (drawn(page, "output")[:, : STEP + 1] == before[:, : STEP + 1]).all()
    assert not drawn(page, "output")[:, STEP + 1 :].any()
    page.click("#step")
    expect(page.locator("#place")).to_have_text(f"step {STEP + 1}")
    assert step_of(page, session) == STEP + 2
    page.click("#rewind")
    expect(page.locator("#error")).to_contain_text("The session is at this step already")
    page.keyboard.press("End")
    expect(page.locator("#verdict")).to_have_text("0 wrong bits of 144")
    assert (drawn(page, "output") == before).all()
    assert recorded_inputs(page, session) == inputs


def test_restart_puts_the_cursor_to_the_beginning(page: Page) -> None:
    open_own(page)
    page.click("#restart")
    expect(page.locator("#place")).to_have_text("step 0")
    assert not drawn(page, "output").any()
    page.click("#step")
    wait_until_idle(page)
    assert drawn(page, "output")[:, 0].any()


def test_rewind_whose_answer_is_lost_changes_nothing(page: Page) -> None:
    session = open_own(page)
    inputs = recorded_inputs(page, session)
    page.click("#rewind")
    expect(page.locator("#verdict")).to_have_text("Nothing is due yet")

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/rewind", lose, times=1)
    page.keyboard.press("Home")
    page.click("#rewind")
    expect(page.locator("#error")).to_contain_text("The server cannot be reached")
    assert step_of(page, session) == 1
    page.keyboard.press("End")
    expect(page.locator("#verdict")).to_have_text("0 wrong bits of 144")
    assert recorded_inputs(page, session) == inputs
