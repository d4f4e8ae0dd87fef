"""The inspector with models of signals: curves and heat maps, recordings, files, and playing."""

import io
import json
import re
import wave
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.app.browsing import Frames, canvas, hover_cell, open_drawing, open_inspector, open_page, run, size, turn
from tests.app.checkpoints import make_checkpoint
from tests.app.graphs import classifier, large, make_graph_checkpoint, rnn
from tests.app.harness import Server, running_server
from tests.app.test_startup import edit_both
from tests.training.one_step import several_dtypes

RATE, HOP, MOST_STEPS = 16_000, 64, 100

SOUND = np.sin(np.arange(120 * HOP) / 9).reshape(-1, HOP).astype(np.float32)
"""A recording of more steps than the server takes at a time."""


SPEECH = """
sample = "sound.npy"

[inputs]
audio = {range = [-1, 1]}

[outputs]
speech = {name = "speech_probability", range = [0, 1]}

[step]
sampling_rate = 16000
hop = 64
units = "samples from -1 to 1"
preprocessing = "mono"

[about]
description = "Finds speech."
license = "MIT"
source = "https://example.org/models/of/speech/and/of/other/sounds/detector.onnx"
"""

POLICY = """
[inputs]
obs = {}
goal = {range = [0, 4]}

[outputs]
action = {range = [-1, 1]}

[trace]
value = {range = [0, 1]}

[step]
sampling_rate = 50
"""


@pytest.fixture(scope="module")
def signal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("signals")
    np.save(root / "sound.npy", SOUND)
    made = {
        "dtypes": (several_dtypes(), ""),
        "large": (large(), ""),
        "mask": (rnn({"magnitude": 40}, {"mask": 40}), ""),
        "policy": (rnn({"obs": 3, "goal": 1}, {"action": 2, "value": 1}), POLICY),
        "speech": (rnn({"audio": HOP}, {"speech": 1}), SPEECH),
        "tokens": (classifier(7), "inputs = {token = {vocabulary = 7}}"),
    }
    for name, (model, spec) in made.items():
        make_graph_checkpoint(root / "checkpoints" / name, root / name, model, spec)
    edit_both(make_checkpoint(root / "checkpoints" / "network", "dnc"), task={"name": "none"})
    limits = ["--max-steps", f"{MOST_STEPS}"]
    with running_server(*limits, data=root / "data", checkpoints=root / "checkpoints") as server:
        yield server


@pytest.fixture(scope="module")
def tab(browser: Browser, signal_server: Server) -> Iterator[Page]:
    with open_page(browser, signal_server.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    with turn(tab) as page:
        yield page


@pytest.fixture
def own_page(browser: Browser, signal_server: Server) -> Iterator[Page]:
    with open_page(browser, signal_server.url) as page:
        yield page


def curve(page: Page, name: str) -> Locator:
    return page.locator(f'svg[data-name="{name}"]')


def choose_file(page: Page, name: str, content: bytes) -> None:
    page.set_input_files("#file", [{"name": name, "mimeType": "", "buffer": content}])


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    """Return samples, int16 [T, channels], as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((samples.shape[1], 2, rate, 0, "NONE", ""))
        written.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def cursor(page: Page) -> float:
    """Return the place in time, in steps, at which the line through the plots is."""
    return float(page.locator("#plots").evaluate("plots => plots.style.getPropertyValue('--cursor')"))


def test_hops_of_a_signal_are_drawn_as_one_waveform(page: Page) -> None:
    open_inspector(page, "speech")
    expect(curve(page, "drawing.audio")).to_have_attribute("aria-label", "audio: a curve of 7680 values from -1 to 1")
    expect(page.locator("#drawing canvas")).to_have_count(0)
    expect(page.locator("#notice")).to_have_text("Recording: 120 steps, 0.48 s")


def test_long_recording_is_sent_whole_in_pieces(own_page: Page, signal_server: Server) -> None:
    frames = Frames(own_page)
    open_inspector(own_page, "speech")
    expect(own_page.locator("#verdict")).to_have_text("120 steps, 0.48 s")
    sent, _ = frames.finish()
    assert [len(frame["inputs"]) for frame in frames.sent.values()] == [60, 60]
    assert (np.array(sent["inputs"], np.float32) == SOUND).all()
    own_page.goto("about:blank")
    assert httpx.get(f"{signal_server.url}/sessions").json() == []


def test_outputs_of_all_pieces_are_one_curve(page: Page, signal_server: Server) -> None:
    open_inspector(page, "speech")
    outputs: list[list[float]] = []
    with httpx.Client(base_url=signal_server.url) as client:
        session = client.post("/sessions", json={"model": "speech"}).json()["id"]
        for piece in np.split(SOUND, [50, 100]):
            outputs += client.post(f"/sessions/{session}/steps", json={"inputs": piece.tolist()}).json()["outputs"]
        client.delete(f"/sessions/{session}")
    shown = curve(page, "speech_probability")
    expect(shown).to_have_attribute("aria-label", "speech probability: a curve of 120 values from 0 to 1")
    box = shown.bounding_box()
    assert box
    shown.hover(position={"x": 110.5 / 120 * box["width"], "y": 10})
    expected = f"speech probability, step 110 (0.440 s): {outputs[110][0]:.3f}"
    expect(page.locator("#readout")).to_have_text(expected)


@pytest.fixture
def stopped(own_page: Page) -> Page:
    """The page of the model of speech, where time passes only by `page.clock`."""
    own_page.clock.install(time=0)
    open_inspector(own_page, "speech")
    own_page.clock.pause_at(600)
    return own_page


def test_run_of_a_graph_is_rewound(page: Page) -> None:
    with page.expect_response(lambda answer: answer.request.method == "POST") as opened:
        open_inspector(page, "speech")
    whole = curve(page, "speech_probability").inner_html()
    page.keyboard.press("Home")
    page.keyboard.press("Backspace")
    expect(curve(page, "speech_probability")).to_have_attribute("aria-label", re.compile("a curve of 1 values"))
    assert page.request.get(f"/sessions/{opened.value.json()['id']}").json()["step"] == 1
    page.keyboard.press("End")
    expect(page.locator("#place")).to_have_text(re.compile("119"))
    assert curve(page, "speech_probability").inner_html() == whole


def test_play_moves_the_cursor_until_it_is_paused(stopped: Page) -> None:
    stopped.click("#play")
    stopped.clock.run_for(160)
    expect(stopped.locator("#readout")).to_contain_text("step 40 (0.160 s), speech probability 0.")
    assert cursor(stopped) == 39.5
    stopped.get_by_role("button", name="Pause").click()
    stopped.clock.run_for(160)
    assert cursor(stopped) == 39.5


def test_play_at_half_speed_goes_half_as_far(stopped: Page) -> None:
    stopped.select_option("#speed", "0.5")
    stopped.click("#play")
    stopped.clock.run_for(160)
    assert cursor(stopped) == 19.5


def test_play_ends_at_the_last_step_and_begins_again(stopped: Page) -> None:
    stopped.click("#play")
    stopped.clock.run_for(960)
    expect(stopped.locator("#play")).to_have_text("Play")
    assert cursor(stopped) == 119.5
    stopped.click("#play")
    stopped.clock.run_for(80)
    assert cursor(stopped) == 19.5


def test_refused_run_stops_playing(stopped: Page) -> None:
    stopped.click("#play")
    stopped.route("**/sessions", lambda route: route.fulfill(status=503, body="{}"))
    stopped.click("#run")
    expect(stopped.locator("#error")).to_contain_text("HTTP 503")
    stopped.clock.run_for(160)
    assert cursor(stopped) < 1


def test_place_in_time_is_moved_by_the_keyboard(page: Page) -> None:
    open_inspector(page, "policy")
    page.locator("#position").focus()
    page.keyboard.press("End")
    expect(page.locator("#readout")).to_contain_text("step 59 (1.180 s), action 0 ")
    page.keyboard.press("Home")
    expect(page.locator("#readout")).to_contain_text("step 0 (0.000 s), action 0 ")


def test_sound_is_played_from_the_place_in_time(own_page: Page) -> None:
    own_page.add_init_script(
        "window.starts = []; AudioBufferSourceNode.prototype.start = (...when) => window.starts.push(when);"
        "AudioBufferSourceNode.prototype.stop = () => {};"
    )
    open_inspector(own_page, "speech")
    assert own_page.locator("#sound option").all_inner_texts() == ["audio", "off"]
    own_page.locator("#position").evaluate(
        "position => { position.value = 60; position.dispatchEvent(new Event('input')) }"
    )
    assert own_page.evaluate("() => window.starts") == []
    own_page.click("#play")
    assert own_page.evaluate("() => window.starts") == [[0, 60 * HOP / RATE]]
    own_page.select_option("#sound", "off")
    assert len(own_page.evaluate("() => window.starts")) == 1


def test_model_without_sound_offers_none(page: Page) -> None:
    open_inspector(page, "policy")
    expect(page.locator("#play")).to_be_visible()
    expect(page.locator("#hearing")).to_be_hidden()


def test_wav_is_sent_as_the_mean_of_its_channels(page: Page) -> None:
    open_inspector(page, "speech")
    samples = np.arange(200)[:, np.newaxis] * [100, 20]
    choose_file(page, "two.wav", wav(samples))
    expect(page.locator("#notice")).to_have_text("two.wav: 4 steps, 16 ms")
    sent, _ = run(page)
    flat = np.array(sent["inputs"]).ravel()
    assert np.allclose(flat[:200], np.arange(200) * 60 / 2**15)
    assert (len(flat), flat[200:].any()) == (4 * HOP, False)


def test_wav_of_floats_is_sent_as_it_is(page: Page) -> None:
    open_inspector(page, "speech")
    samples = np.linspace(-1, 1, HOP, dtype="<f4")
    head = b"fmt \x10\0\0\0\x03\0\x01\0" + (RATE).to_bytes(4, "little") + bytes(4) + b"\x04\0\x20\0"
    body = b"WAVE" + head + b"data" + (4 * HOP).to_bytes(4, "little") + samples.tobytes()
    choose_file(page, "float.wav", b"RIFF" + len(body).to_bytes(4, "little") + body)
    expect(page.locator("#length")).to_have_value("1")
    sent, _ = run(page)
    assert (np.array(sent["inputs"][0], np.float32) == samples).all()


@pytest.mark.parametrize(
    ("model", "name", "content", "complaint"),
    [
        ("speech", "cd.wav", wav(np.zeros((100, 1)), 44_100), "cd.wav, sampling rateExpected 16 kHz: convert it"),
        ("speech", "cd.wav", wav(np.zeros((100, 1)), 44_100), "got 44.1 kHz."),
        ("speech", "cut.wav", wav(np.zeros((100, 1)))[:30], "a WAV file with the chunks fmt and data"),
        ("policy", "a.wav", wav(np.zeros((100, 1))), "no part of a step is a piece of a signal, got a WAV file"),
        ("policy", "a.json", b"[[1, 2, 3, 4], [1, 2]]", "a.json, step 1Expected 4 numbers, got 2."),
        ("policy", "a.json", b'{"steps": []}', "a list of steps of 4 numbers, got no list of steps."),
        ("policy", "a.json", b"[[1, 2", "Expected JSON, got "),
        ("policy", "a.csv", b"1,2,3,4\n1,2,x,4\n", "number 2 of step 1Expected a finite number, got NaN."),
        ("policy", "a.npy", npy(np.zeros((2, 4), np.complex64)), "numbers of <f4, <f8, <i2, <i4, got <c8."),
        ("policy", "a.npy", npy(np.zeros((2, 4)))[:-1], "Expected 8 numbers, got a file that is cut off."),
        ("policy", "a.npy", npy(np.zeros((2, 4)))[:7], "Expected an npy file, got one that is cut off."),
        ("policy", "a.npy", npy(np.asfortranarray(np.ones((2, 4)))), "an array in C order, got one in Fortran order"),
    ],
)
def test_file_that_does_not_fit_is_refused(page: Page, model: str, name: str, content: bytes, complaint: str) -> None:
    open_inspector(page, model)
    before = page.locator("#notice").inner_text()
    choose_file(page, name, content)
    expect(page.locator("#error")).to_contain_text("The file cannot be used")
    assert complaint in (page.locator("#error").text_content() or "")
    expect(page.locator("#notice")).to_have_text(before)


STEPS = [[0.5, -1.25, 3.0, 4.0], [1.0, 2.0, 0.0, 0.25]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(STEPS).encode()),
        ("a.json", json.dumps({"inputs": STEPS}).encode()),
        ("a.csv", b"x,y,z,goal\r\n0.5,-1.25,3,4\r\n1,2,0,0.25\r\n"),
        ("a.txt", b"0.5 -1.25 3 4\n1 2 0 0.25\n"),
        ("a.npy", npy(np.array(STEPS))),
        ("a.npy", npy(np.array(STEPS, np.float32))),
    ],
)
def test_numbers_in_a_file_are_sent_as_they_are(page: Page, name: str, content: bytes) -> None:
    open_inspector(page, "policy")
    choose_file(page, name, content)
    expect(page.locator("#length")).to_have_value("2")
    sent, _ = run(page)
    assert sent["inputs"] == STEPS


def test_plain_list_of_samples_is_split_into_hops(page: Page) -> None:
    open_inspector(page, "speech")
    choose_file(page, "a.npy", npy(np.arange(100, dtype=np.int16)))
    expect(page.locator("#length")).to_have_value("2")
    sent, _ = run(page)
    assert np.array(sent["inputs"]).ravel().tolist() == [*range(100), *[0] * 28]


def test_long_file_is_cut_off_with_a_notice(page: Page) -> None:
    open_inspector(page, "policy")
    choose_file(page, "long.npy", npy(np.zeros((10_001, 4), np.float32)))
    notice = "long.npy: 10,000 steps, 200 s, the first of 10,001 steps, 200.02 s"
    expect(page.locator("#notice")).to_have_text(notice)
    expect(page.locator("#length")).to_have_value("10000")


@pytest.mark.parametrize("shape", ["Sine", "Step", "Noise", "Zeros"])
def test_made_signal_stays_within_the_ranges(page: Page, shape: str) -> None:
    open_inspector(page, "policy")
    page.get_by_role("button", name=shape, exact=True).click()
    expect(page.locator("#notice")).to_have_text(f"{shape}: 60 steps, 1.2 s")
    sent, _ = run(page)
    values = np.array(sent["inputs"])
    assert (values.shape, values.min() >= -1, 0 <= values[:, 3].min() <= values[:, 3].max() <= 4) == (
        (60, 4),
        True,
        True,
    )
    assert values.any() == (shape != "Zeros")


def test_curve_that_is_drawn_on_is_sent(page: Page) -> None:
    open_inspector(page, "policy")
    page.get_by_role("button", name="Zeros").click()
    drawing = curve(page, "drawing.obs.1")
    box = drawing.bounding_box()
    assert box
    left, right = ({"x": (step + 0.5) / 60 * box["width"], "y": 0.25 * box["height"]} for step in (10, 20))
    drawing.drag_to(drawing, source_position=left, target_position=right)
    sent, _ = run(page)
    values = np.array(sent["inputs"])
    assert np.allclose(values[10:21, 1], 0.5, atol=0.05)
    values[10:21, 1] = 0
    assert not values.any()


def test_length_adds_zeros_and_cuts_off(page: Page) -> None:
    open_inspector(page, "speech")
    page.fill("#length", "2")
    page.locator("#length").blur()
    page.fill("#length", "3")
    sent, _ = run(page)
    assert (np.array(sent["inputs"], np.float32) == [*SOUND[:2], np.zeros(HOP)]).all()
    page.get_by_role("button", name="Recording", exact=True).click()
    expect(page.locator("#length")).to_have_value("120")


def test_few_numbers_are_a_curve_each_with_their_names(page: Page) -> None:
    open_inspector(page, "policy")
    names = page.locator("#plots .timed svg").evaluate_all("all => all.map(svg => svg.dataset.name)")
    assert names == ["obs.0", "obs.1", "obs.2", "goal", "action.0", "action.1", "value"]
    expect(curve(page, "action.1")).to_have_attribute("aria-label", "action 1: a curve of 60 values from -1 to 1")


def test_curve_has_each_value_in_the_middle_of_its_step(page: Page) -> None:
    open_inspector(page, "policy")
    page.get_by_role("button", name="Step", exact=True).click()
    run(page)
    line = curve(page, "goal").locator(".line").get_attribute("d") or ""
    points = [[float(number) for number in point.split(",")] for point in line.strip("M").split("L")]
    assert points == [[step + 0.5, 0.5 if step < 30 else 0.2] for step in range(60)]


def test_tokens_of_a_graph_are_written_and_its_outputs_named(page: Page) -> None:
    open_inspector(page, "tokens")
    open_drawing(page)
    page.fill("#tokens", "3 0 6")
    sent, _ = run(page)
    assert sent["inputs"] == [[3], [0], [6]]
    names = page.locator("#plots .timed [data-name]").evaluate_all("all => all.map(one => one.dataset.name)")
    assert names == ["input", "scores.0", "scores.1"]
    expect(page.locator("#hearing")).to_be_hidden()


def test_leaf_that_is_too_large_is_named_instead(page: Page) -> None:
    open_inspector(page, "large")
    expect(page.locator("#plots")).to_contain_text("Too large to be shown: h, 3 \N{MULTIPLICATION SIGN} 6000 numbers.")
    expect(page.locator('#plots [data-name^="state."]')).to_have_count(0)


def test_leaves_of_whole_numbers_are_shown(page: Page) -> None:
    open_inspector(page, "dtypes")
    hover_cell(page, "state.count", column=0, row=0)
    expect(page.locator("#readout")).to_have_text("number 0: 60.000")


def test_traces_are_shown_by_their_names_and_ranges(page: Page) -> None:
    open_inspector(page, "policy")
    traces = page.locator("#plots section", has_text="Traces")
    label = "value: a curve of 60 values from 0 to 1"
    expect(traces.locator("svg")).to_have_attribute("aria-label", label)


def test_many_numbers_are_a_heat_map(page: Page) -> None:
    open_inspector(page, "mask")
    assert [size(canvas(page, name)) for name in ("drawing.magnitude", "magnitude", "mask")] == [(60, 40)] * 3
    _, answer = run(page)
    hover_cell(page, "mask", column=7, row=5)
    expect(page.locator("#readout")).to_have_text(f"number 5, step 7: {answer['outputs'][7][5]:.3f}")


def test_state_after_the_last_step_is_shown(page: Page) -> None:
    open_inspector(page, "policy")
    assert size(canvas(page, "state.h")) == (8, 1)
    expect(page.locator("#plots")).not_to_contain_text("no memory to look into")


def test_card_says_what_a_step_is(page: Page) -> None:
    open_inspector(page, "speech")
    card = page.locator("#card")
    for text in (
        "ONNX graph",
        "Finds speech.",
        "64 samples at 16 kHz, 4 ms",
        "speech probability, 0 to 1",
        "samples from -1 to 1",
        "mono",
        "MIT",
        "https://example.org/models/of/speech/and/of/other/sounds/detector.onnx",
        "batched",
    ):
        expect(card).to_contain_text(text)
    names = card.locator("dt").all_inner_texts()
    assert {"Controller", "Heads", "Memory", "Task"}.isdisjoint(names)


def test_models_of_signals_log_nothing(own_page: Page) -> None:
    messages: list[str] = []
    own_page.on("console", lambda message: messages.append(message.text))
    open_inspector(own_page, "policy")
    for model in ("mask", "tokens", "dtypes", "policy"):
        frames = Frames(own_page)
        own_page.select_option("#model", model)
        assert frames.finish()
    own_page.click("#play")
    expect(own_page.locator("#readout")).to_contain_text("step ")
    assert messages == []


@pytest.mark.parametrize("model", ["speech", "policy", "mask"])
def test_page_of_signals_fits_a_phone(own_page: Page, model: str) -> None:
    own_page.set_viewport_size({"width": 400, "height": 800})
    open_inspector(own_page, model)
    own_page.click("#about summary")  # what a closed card measures says nothing
    fits = """() => [...document.querySelectorAll("html, #card, #sequence, #results")]
        .every(box => box.scrollWidth <= box.clientWidth)"""
    own_page.wait_for_function(fits)


def test_network_without_a_task_takes_signals_and_shows_memory(page: Page) -> None:
    open_inspector(page, "network")
    assert size(canvas(page, "memory")) == (4, 8)
    names = page.locator("#drawing svg").evaluate_all("all => all.map(svg => svg.dataset.name)")
    assert names == [f"drawing.input.{number}" for number in range(4)]
    expect(page.locator("#card")).to_contain_text("2 read, 1 write")
