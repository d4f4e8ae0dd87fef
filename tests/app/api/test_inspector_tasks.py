"""The inspector with a model of every task that it knows: its input, the request, and the verdict on the answer."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page, expect

from tests.app.browsing import (
    Frames,
    canvas,
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
from tests.app.checkpoints import KINDS, make_task_checkpoint
from tests.app.harness import Server, running_server
from training.tasks import TASKS, Task, build_task, task_values
from training.tasks.babi_texts import split_words
from training.tasks.dyck import BRACKETS

WORDS = ("-", ".", "?", "apple", "garden", "is", "kitchen", "mary", "the", "to", "went", "where")

MODELS: dict[str, tuple[Task, dict[str, Any]]] = {
    "repeat": (build_task({"name": "repeat-copy", "bits": 3, "length": [1, 4], "repeats": [1, 3]}), KINDS["dnc"]),
    "recall": (build_task({"name": "associative-recall", "bits": 3, "item_length": 2, "items": [2, 4]}), KINDS["ntm"]),
    "chain": (build_task({"name": "copy-recall", "bits": 3, "length": 2, "item_length": 1, "items": 2}), KINDS["dnc"]),
    "sort": (build_task({"name": "priority-sort", "bits": 3, "items": 5, "share": 0.5}), KINDS["dnc"]),
    "pairs": (build_task({"name": "key-value", "bits": 3, "pairs": 4, "overwrites": 2}), KINDS["rnn"]),
    "brackets": (build_task({"name": "dyck", "kinds": 2, "length": [1, 4]}), KINDS["rnn"]),
    "stories": (build_task({"name": "babi", "directory": "there", "tasks": [1, 3], "vocabulary": WORDS}), KINDS["rnn"]),
    "grams": (build_task({"name": "ngrams"}), KINDS["rnn"]),
}

NONE = "\N{EN DASH}"

DIGITS = {"output_size": 6, "output_activation": "softmax", "output_groups": 2, **KINDS["rnn"]}


def row(options: dict[str, Any], unit: str, **values: Any) -> dict[str, Any]:
    measured = {"memory_size": None, "sequences": 1000, "errors": 0.0, "asked": 160.0, "wrong_sequences": 0}
    return {"options": options, **measured, "optimum": None, "unit": unit, "seed": 1, **values}


EVALUATION = {
    "repeat": [
        row({"length": 10, "repeats": [1, 20]}, "wrong bits", memory_size=64, errors=2.504, asked=123.46),
        row({}, "wrong bits", memory_size=8, errors=1 / 3, wrong_sequences=7),
    ],
    "stories": [row({"tasks": [1, 3], "split": "test"}, "wrong answers", asked=5.0)],
    "grams": [row({"length": 200}, "bits of cost", errors=134.567, asked=195.0, optimum=130.2)],
}


@pytest.fixture(scope="module")
def task_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("tasks")
    for name, (task, config) in MODELS.items():
        make_task_checkpoint(root / "checkpoints" / name, task, config, EVALUATION.get(name, ()))
    make_task_checkpoint(root / "checkpoints" / "digits", MODELS["repeat"][0], DIGITS)
    with running_server("--backend", "torch", data=root / "data", checkpoints=root / "checkpoints") as server:
        yield server


@pytest.fixture(scope="module")
def tab(browser: Browser, task_server: Server) -> Iterator[Page]:
    with open_page(browser, task_server.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    with turn(tab) as page:
        yield page


# The sequences are those of training


def drawn_repeat_copy(task: Any, inputs: Any, _targets: Any) -> tuple[Any, dict[str, int]]:
    length = int(inputs[:, task.bits + 1].nonzero()[0]) - 1
    return inputs[1 : length + 1, : task.bits].tolist(), {"repeats": (len(inputs) - 3) // length - 1}


def drawn_associative_recall(task: Any, inputs: Any, _targets: Any) -> tuple[Any, dict[str, int]]:
    count = int(inputs[:, task.bits].sum())
    begin = count * (task.item_length + 1)
    items = inputs[:begin].view(count, task.item_length + 1, -1)[:, 1:, : task.bits]
    asked = inputs[begin + 1 : begin + 1 + task.item_length, : task.bits]
    return items.flatten(0, 1).tolist(), {"query": int((items == asked).flatten(1).all(1).nonzero())}


def drawn_copy_recall(task: Any, inputs: Any, targets: Any) -> tuple[Any, dict[str, int]]:
    first, second = task.parts()
    end = 2 * int(inputs[:, task.bits + 1].argmax())
    vectors, _ = drawn_copy(first, inputs[:end], targets)
    others = [channel for channel in range(task.input_size) if channel not in (task.bits, task.bits + 1)]
    items, settings = drawn_associative_recall(second, inputs[end:, others], targets)
    return vectors + items, settings | {"length": len(vectors)}


def drawn_priority_sort(task: Any, inputs: Any, _targets: Any) -> tuple[Any, dict[str, int]]:
    return inputs[: int(inputs[:, task.bits + 1].nonzero()), : task.bits + 1].tolist(), {}


def drawn_copy(task: Any, inputs: Any, _targets: Any) -> tuple[Any, dict[str, int]]:
    vectors = inputs[: len(inputs) // 2 - 1] if task.flags == "end" else inputs[1 : len(inputs) // 2]
    return vectors[:, : task.bits].tolist(), {}


def drawn_key_value(task: Any, inputs: Any, _targets: Any) -> tuple[Any, dict[str, int]]:
    return inputs[: int(inputs[:, 2 * task.bits].nonzero()), : 2 * task.bits].tolist(), {}


def drawn_ngrams(_: Any, inputs: Any, targets: Any) -> tuple[Any, dict[str, int]]:
    return [*inputs.tolist(), targets[-1].tolist()], {}


def written_dyck(_: Any, inputs: Any, _targets: Any) -> tuple[Any, dict[str, int]]:
    return [BRACKETS[int(token)] for token in inputs[:, 0]], {}


PATTERNS = {
    "copy": drawn_copy,
    "repeat-copy": drawn_repeat_copy,
    "associative-recall": drawn_associative_recall,
    "copy-recall": drawn_copy_recall,
    "priority-sort": drawn_priority_sort,
    "key-value": drawn_key_value,
    "dyck": written_dyck,
    "ngrams": drawn_ngrams,
}
"""How a sequence of a task becomes what one would draw or write for it, and the settings to choose."""

ENCODE = """async ({ model, pattern, settings }) => {
    const { taskOf } = await import("/static/tasks.js");
    return taskOf(model).encode(pattern, settings);
}"""

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "copy": [{"length": length, "flags": flags} for flags in ("start-and-end", "end") for length in (1, 4, 20)],
    "priority-sort": [{"items": n, "share": share} for n, share in ((1, 0.4), (5, 0.5), (7, 0.5), (20, 0.8))],
    "key-value": [{"pairs": 1, "overwrites": 3}, {"pairs": 1, "overwrites": 0}],
    "dyck": [{"kinds": kinds, "length": 3} for kinds in (1, 2, 4)] * 4,
}


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_becomes_the_sequence_that_training_makes_of_it(page: Page, name: str) -> None:
    page.goto("/")
    generator = torch.Generator().manual_seed(1)
    for options in OPTIONS.get(name, [{}] * 5):
        task = build_task({"name": name, **options})
        episode = task.sample(generator, 1)
        pattern, settings = PATTERNS[name](task, episode.inputs[:, 0], episode.targets[:, 0])
        model = {"task": task_values(task)}
        sequence = page.evaluate(ENCODE, {"model": model, "pattern": pattern, "settings": settings})
        np.testing.assert_allclose(sequence["inputs"], episode.inputs[:, 0], atol=1e-6)
        steps = zip(episode.targets[:, 0].tolist(), episode.mask[:, 0].tolist(), strict=True)
        assert sequence["targets"] == [target if asked else None for target, asked in steps]


def test_tasks_that_the_page_knows_are_all_held_to_training(page: Page) -> None:
    page.goto("/")
    known = page.evaluate("async () => Object.keys((await import('/static/tasks.js')).TASKS)")
    assert set(known) == {*PATTERNS, "babi"} <= set(TASKS)


def test_last_value_of_a_repeated_key_is_due(page: Page) -> None:
    page.goto("/")
    pattern = [[0, 1, 1, 1], [1, 1, 0, 1], [0, 1, 0, 0]]
    model = {"task": task_values(build_task({"name": "key-value", "bits": 2, "pairs": 3}))}
    sequence = page.evaluate(ENCODE, {"model": model, "pattern": pattern, "settings": {}})
    assert sequence["inputs"][3:] == [[0, 0, 0, 0, 1], [0, 1, 0, 0, 0], [1, 1, 0, 0, 0]]
    assert sequence["targets"] == [None] * 4 + [[0, 0], [0, 1]]


# Drawn


def test_repeats_asked_for_are_those_of_the_sequence(page: Page) -> None:
    open_inspector(page, "repeat")
    open_drawing(page)
    expect(page.locator("#hint")).to_contain_text("1 to 4 of them, and 1 to 3 repeats")
    clear_drawing(page, 2)
    page.fill("#repeats", "5")
    page.locator("#repeats").blur()
    expect(page.locator("#results")).to_have_class("stale")
    sent, _ = run(page)
    assert len(sent["inputs"]) == 2 * (5 + 1) + 3
    hover_cell(page, "target", column=14, row=3)
    expect(page.locator("#readout")).to_have_text("channel end, time 14: 1.000")
    expect(page.locator("#verdict")).to_contain_text(f"of {11 * 4}")


def test_repeats_that_cannot_be_are_the_nearest_that_can(page: Page) -> None:
    open_inspector(page, "repeat")
    most = page.locator("#repeats").get_attribute("max") or ""
    for asked, taken in (("0", "1"), ("1000", most), ("2.4", "2")):
        page.fill("#repeats", asked)
        page.locator("#repeats").blur()
        expect(page.locator("#repeats")).to_have_value(taken)


def test_field_that_is_typed_into_keeps_its_text(page: Page) -> None:
    open_inspector(page, "repeat")
    field = page.locator("#repeats")
    field.evaluate("node => (node.mark = 'the same')")
    page.fill("#length", "3")
    with page.expect_response("**/sample?*"):
        page.locator("#length").blur()
        field.focus()
        field.press("Control+A")
        field.press("7")
    expect(page.locator("#run")).to_be_enabled()
    expect(field).to_have_value("7")
    assert field.evaluate("node => node.mark") == "the same"
    with page.expect_response("**/sample?*repeats=7*"):
        field.blur()


def test_query_repeats_an_item_and_the_next_is_due(page: Page) -> None:
    open_inspector(page, "recall")
    clear_drawing(page, 3, "items")
    assert size(canvas(page, "drawing")) == (6, 3)
    for column, bit in ((2, 0), (4, 1), (5, 2)):
        draw(page, "drawing", column, bit)
    page.fill("#query", "1")
    page.locator("#query").blur()
    sent, _ = run(page)
    ones = [(t, channel) for t, step in enumerate(sent["inputs"]) for channel, value in enumerate(step) if value]
    assert ones == [(0, 3), (3, 3), (4, 0), (6, 3), (7, 1), (8, 2), (9, 4), (10, 0), (12, 4)]
    hover_cell(page, "target", column=13, row=1)
    expect(page.locator("#readout")).to_have_text("channel 1, time 13: 1.000")


def test_vectors_drawn_are_copied_and_the_items_behind_them_recalled(page: Page) -> None:
    open_inspector(page, "chain")
    clear_drawing(page, 3, "items")
    assert size(canvas(page, "drawing")) == (5, 3)
    for column, bit in ((1, 0), (3, 1), (4, 2)):
        draw(page, "drawing", column, bit)
    page.fill("#query", "1")
    page.locator("#query").blur()
    sent, _ = run(page)
    ones = [(t, channel) for t, step in enumerate(sent["inputs"]) for channel, value in enumerate(step) if value]
    copied = [(0, 3), (2, 0), (3, 4)]
    assert ones == [*copied, (6, 5), (8, 5), (9, 1), (10, 5), (11, 2), (12, 6), (13, 1), (14, 6)]
    for column, row in ((5, 0), (15, 2)):
        hover_cell(page, "target", column=column, row=row)
        expect(page.locator("#readout")).to_have_text(f"channel {row}, time {column}: 1.000")


@pytest.mark.parametrize("model", ["recall", "chain"])
def test_drawing_without_an_item_behind_the_query_is_refused(page: Page, model: str) -> None:
    page.goto(f"/?model={model}&drawn=2.3.0.AA")
    expect(page.locator("#error")).to_contain_text("No item was drawn behind that of “Query”")
    expect(page.locator("#error")).to_contain_text("items or more, got")


def test_query_stays_within_the_items_that_have_a_next_one(page: Page) -> None:
    open_inspector(page, "recall")
    resize(page, "query", 2)
    resize(page, "items", 1)
    expect(page.locator("#items")).to_have_value("2")
    expect(page.locator("#query")).to_have_value("0")


def test_priorities_drawn_order_what_is_due(page: Page) -> None:
    open_inspector(page, "sort")
    clear_drawing(page, 4, "items")
    draw(page, "drawing", 3, 2)
    for column, level in ((1, 10), (3, 0), (2, 3)):
        draw(page, "priority", column, level)
    sent, _ = run(page)
    assert [step[3] for step in sent["inputs"][:4]] == pytest.approx([0, -1, 0.4, 1])
    assert len(sent["inputs"]) == 4 + 1 + 2
    hover_cell(page, "target", column=5, row=2)
    expect(page.locator("#readout")).to_have_text("channel 2, time 5: 1.000")
    hover_cell(page, "input", column=1, row=3)
    expect(page.locator("#readout")).to_have_text("channel priority, time 1: -1.000")


def test_random_priorities_are_within_their_bounds_and_apart(page: Page) -> None:
    open_inspector(page, "sort")
    sent, _ = resize(page, "items", 30)
    priorities = [step[3] for step in sent["inputs"][:30]]
    assert len(set(priorities)) == 30
    assert -1 <= min(priorities) < -0.3
    assert 0.3 < max(priorities) <= 1


def test_drawing_is_cleared_for_a_task_of_another_form(page: Page) -> None:
    open_inspector(page, "repeat")
    open_drawing(page)
    page.click("#clear")
    for model, name, per_item in (("recall", "drawing", 2), ("sort", "priority", 1)):
        frames = Frames(page)
        page.select_option("#model", model)
        frames.finish()
        open_drawing(page)
        assert size(canvas(page, name))[0] == per_item * int(page.input_value("#items"))
    expect(page.locator("#repeats")).to_have_count(0)


# Written


def test_brackets_written_are_sent_as_tokens_and_judged(page: Page) -> None:
    open_inspector(page, "brackets")
    for word, tokens, due in (("([]) ()", [0, 2, 3, 1, 0, 1], "valid"), ("([)]", [0, 2, 1, 3], "not valid")):
        open_drawing(page)
        page.fill("#tokens", word)
        sent, answer = run(page)
        assert sent["inputs"] == [[token] for token in tokens]
        last = answer["outputs"][-1]
        verdict = ("not valid", "valid")[last.index(max(last))]
        judged = "right" if verdict == due else "wrong"
        expect(page.locator("#verdict")).to_have_text(f"{verdict}, probability {max(last):.3f}, which is {judged}")
        expect(page.locator("#verdict")).to_have_class(judged)
        assert framed(page) == ([] if verdict == due else [(len(tokens) - 1, last.index(max(last)))])


def framed(page: Page) -> list[tuple[int, int]]:
    """Return the columns and rows of the outputs that have a frame."""
    count = """marks => {
        const [columns, rows] = [marks.previousSibling.width, marks.previousSibling.height];
        const { width, height } = marks;
        const pixels = marks.getContext("2d").getImageData(0, 0, width, height).data;
        const cells = Array.from({ length: columns * rows }, (_, at) => [at % columns, Math.floor(at / columns)]);
        const isDrawn = (x, y) => pixels[4 * (y * width + x) + 3] > 0;
        return cells.filter(([column, row]) => {
            const x = Math.floor((column + 0.5) * width / columns);
            const [top, bottom] = [Math.ceil(row * height / rows), Math.floor((row + 1) * height / rows) - 1];
            return isDrawn(x, top) && isDrawn(x, bottom);
        });
    }"""
    found = canvas(page, "output").locator("+ .marks").evaluate(count)
    return [(column, row) for column, row in found]


def test_random_brackets_are_as_often_valid_as_not(task_server: Server) -> None:
    with httpx.Client(base_url=task_server.url) as client:
        samples = [client.get(f"/models/brackets/sample?seed={seed}").json() for seed in range(100)]
    assert 30 < sum(sample["targets"][-1][1] for sample in samples) < 70


def test_unknown_bracket_is_refused_with_the_known_ones(page: Page) -> None:
    open_inspector(page, "brackets")
    open_drawing(page)
    page.fill("#tokens", "(<)")
    page.click("#run")
    expect(page.locator("#error")).to_contain_text("Unknown word: the model does not know “<”")
    expect(page.locator("#error")).to_contain_text("Expected one of ( ) [ ]")


def test_story_is_sent_as_tokens_and_answered_in_words(page: Page) -> None:
    open_inspector(page, "stories")
    open_drawing(page)
    page.fill("#tokens", "Mary went to the kitchen. Where is Mary? - -")
    sent, answer = run(page)
    words = ["mary", "went", "to", "the", "kitchen", ".", "where", "is", "mary", "?", "-", "-"]
    assert sent["inputs"] == [[WORDS.index(word)] for word in words]
    best = [max(range(len(WORDS)), key=answer["outputs"][step].__getitem__) for step in (10, 11)]
    probability = answer["outputs"][10][best[0]] * answer["outputs"][11][best[1]]
    verdict = f"where is mary ? {WORDS[best[0]]} {WORDS[best[1]]}, probability {probability:.3f}"
    expect(page.locator("#verdict")).to_have_text(verdict)
    hover_cell(page, "input", column=4, row=0)
    expect(page.locator("#readout")).to_have_text("token 0, time 4: kitchen")
    hover_cell(page, "output", column=10, row=4)
    expect(page.locator("#readout")).to_contain_text("class garden, time 10: 0.")


def test_story_is_split_into_words_as_in_training(page: Page) -> None:
    texts = [
        "Cafe\u0301 \u0130s \u0939\u093f\u0928\u094d\u0926\u0940, x\u0323\u0307y's!",
        "m\u06cc\u200cx a-b -5 (-y) \u0301z",
        "\u201cwhat?\u201d",
    ]
    split = """async (texts) => {
        const { babi } = await import("/static/words.js");
        return texts.map(babi({ task: { vocabulary: [] } }).split);
    }"""
    open_inspector(page, "stories")
    assert page.evaluate(split, texts) == [split_words(text) for text in texts]
    assert page.evaluate(split, ["where ? - -"]) == [["where", "?", "-", "-"]]
    planned = split.replace("[] }", "[], planning: 2 }")
    asked = ["a", "?", "?", "?", "-", "-", "b", "?", "?", "?", "-", "c", "?"]
    assert page.evaluate(planned, ["a ? - - b ? - c ?", " ".join(asked)]) == [asked, asked]


def test_story_without_a_question_says_how_to_ask(page: Page) -> None:
    open_inspector(page, "stories")
    open_drawing(page)
    page.fill("#tokens", "mary went to the garden .")
    run(page)
    expect(page.locator("#verdict")).to_have_text("Nothing is asked: write “-” where a word of an answer is due")


def test_sample_of_a_story_has_known_words(page: Page) -> None:
    open_inspector(page, "stories")
    page.click("#another")
    open_drawing(page)
    story = page.input_value("#tokens").split()
    assert set() < set(story) <= set(WORDS)


# The verdict and the card


def test_digits_of_an_answer_are_shown_each(page: Page) -> None:
    open_inspector(page, "digits")
    _, answer = run(page)
    assert size(canvas(page, "digits")) == (len(answer["outputs"]), 2)
    digit = int(np.argmax(answer["outputs"][4][3:]))
    hover_cell(page, "digits", column=4, row=1)
    expect(page.locator("#readout")).to_have_text(f"digit 1, time 4: {digit}")


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        (
            "repeat",
            [
                ["Measured at", "Locations", "Wrong bits, mean", "Wrong sequences"],
                ["length 10, repeats 1 to 20", "64", "2.50 of 123.5", "0 of 1000"],
                ["as in training", "8", "0.33 of 160", "7 of 1000"],
            ],
        ),
        (
            "stories",
            [
                ["Measured at", "Locations", "Wrong answers, mean", "Wrong sequences"],
                ["tasks 1, 3, split test", NONE, "0.00 of 5", "0 of 1000"],
            ],
        ),
        (
            "grams",
            [
                ["Measured at", "Locations", "Bits of cost, mean", "Optimum"],
                ["length 200", NONE, "134.57 of 195", "130.20"],
            ],
        ),
    ],
)
def test_card_shows_measurements_and_their_place(page: Page, model: str, rows: list[list[str]]) -> None:
    open_inspector(page, model)
    table = page.locator("#card table tr")
    assert [table.nth(row).locator("th, td").all_text_contents() for row in range(table.count())] == rows


def test_card_omits_word_lists_and_paths(page: Page) -> None:
    open_inspector(page, "stories")
    task = page.locator("#card dd").nth(1)
    expect(task).to_have_text("babi, tasks 1, 3, split train, max words 800, planning 0")
    page.click("#about > summary")
    page.click("#card summary")
    expect(page.locator("#card details")).to_contain_text("apple garden is kitchen")
