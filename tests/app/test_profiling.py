"""Profiles: they name the busy functions, in both formats, also of a real server under load."""

import asyncio
import re
import signal
import sys
import threading
import time
import zlib
from collections import defaultdict
from xml.etree import ElementTree

import pytest
import uvloop

from app.profiling import Profiler, flame_graph, folded
from app.settings import SettingsError
from tests.app.api.test_stream import ask, stream
from tests.app.browsing import open_page
from tests.app.harness import Server, running_server

pytestmark = pytest.mark.slow

STACKS = {("main", "app/a.py:f", "app/a.py:g"): 0.75, ("main", "app/a.py:f"): 0.15, ("other",): 0.1}
LARGE = bytes(10**7)
SVG = "{http://www.w3.org/2000/svg}"


def spin(seconds: float) -> None:
    """Use `seconds` of this thread's processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def spin_in_c() -> None:
    """Use processor time without the interpreter's lock."""
    zlib.crc32(LARGE)


def read_folded(text: str) -> dict[tuple[str, ...], int]:
    """Return the microseconds of each stack of a folded profile."""
    lines = [line.rsplit(" ", 1) for line in text.splitlines()]
    return {tuple(stack.split(";")): int(microseconds) for stack, microseconds in lines}


def seconds_within(text: str, name: str) -> dict[str, float]:
    """Return, by thread, the seconds of stacks with a function whose name ends with `name`."""
    seconds: dict[str, float] = defaultdict(float)
    for stack, microseconds in read_folded(text).items():
        if any(function.endswith(name) for function in stack):
            seconds[stack[0]] += microseconds / 1e6
    return dict(seconds)


def profiled(path, work) -> str:
    """Return the profile of a call of `work`."""
    profiler = Profiler(path)
    profiler.start()
    try:
        work()
    finally:
        profiler.stop()
    return path.read_text()


def run_in_thread(work, name: str) -> None:
    thread = threading.Thread(target=work, name=name)
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)  # in between, samples are taken


def load(server: Server) -> None:
    """Send thousands of steps to a server."""
    with stream(server, "/stream?model=dnc-copy") as (connection, _):
        for seq in range(100):
            ask(connection, seq=seq, inputs=[[0.0] * 10] * 300)


def shows_in_some_profile(profile, shown, tries: int = 5) -> bool:
    """Return whether something shows in one of some profiles: where other processes are busy, samples come late."""
    return any(shown(profile()) for _ in range(tries))


def test_busy_functions_have_the_time_of_their_threads(tmp_path):
    def work() -> None:
        spin(0.3)
        run_in_thread(lambda: spin(0.2), "the;spinner")

    assert shows_in_some_profile(
        lambda: seconds_within(profiled(tmp_path / "p.txt", work), ":spin"),
        lambda found: found == pytest.approx({"MainThread": 0.3, "the,spinner": 0.2}, abs=0.1),
    )


def test_thread_in_c_code_counts_without_the_interpreters_lock(tmp_path):
    assert shows_in_some_profile(
        lambda: profiled(tmp_path / "p.txt", lambda: run_in_thread(lambda: [spin_in_c() for _ in range(100)], "in C")),
        lambda text: seconds_within(text, ":spin_in_c").get("in C", 0) > 0.1,
    )


def test_time_sampled_while_waiting_counts_where_the_thread_worked(tmp_path):
    def work_and_wait() -> None:
        never = threading.Event()
        while time.thread_time() < 0.8:
            never.wait(0.002)
            spin_in_c()

    def works_most(text: str) -> bool:
        total = sum(micro for stack, micro in read_folded(text).items() if stack[0] == "busy") / 1e6
        return seconds_within(text, ":spin_in_c").get("busy", 0) > 0.8 * total

    assert shows_in_some_profile(
        lambda: profiled(tmp_path / "p.txt", lambda: run_in_thread(work_and_wait, "busy")), works_most
    )


def test_time_of_a_waiting_event_loop_counts_for_callbacks(tmp_path):
    async def spin_and_wait() -> None:
        for _ in range(300):
            spin(0.001)
            await asyncio.to_thread(time.sleep, 0.003)

    def profile_of_a_loop() -> str:
        profiler = Profiler(tmp_path / "p.txt")
        thread = threading.Thread(target=lambda: [spin_in_c() for _ in range(600)])
        thread.start()
        profiler.start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(spin_and_wait())
        profiler.stop()
        thread.join()
        return (tmp_path / "p.txt").read_text()

    def is_of_callbacks(text: str) -> bool:
        by_function = {stack[-1]: micro for stack, micro in read_folded(text).items() if stack[0] == "MainThread"}
        return by_function.get("asyncio/runners.py:Runner.run", 0) < 0.4 * sum(by_function.values())

    assert shows_in_some_profile(profile_of_a_loop, is_of_callbacks, tries=20)


def test_thread_that_only_waits_counts_almost_nothing(tmp_path):
    over = threading.Event()
    threading.Thread(target=over.wait, name="idle").start()
    text = profiled(tmp_path / "p.txt", lambda: spin(0.2))
    over.set()
    assert sum(micro for stack, micro in read_folded(text).items() if stack[0] == "idle") < 2000


def test_folded_stacks_have_a_line_each_with_microseconds():
    assert folded(STACKS) == "main;app/a.py:f 150000\nmain;app/a.py:f;app/a.py:g 750000\nother 100000\n"


def test_flame_graph_has_boxes_as_wide_as_their_share():
    boxes = ElementTree.fromstring(flame_graph(STACKS, "a & b")).findall(f"{SVG}g")
    drawn = {box.find(f"{SVG}title").text: box.find(f"{SVG}rect").attrib for box in boxes}
    assert list(drawn) == [
        "main: 90.0 %, 0.900 s",
        "other: 10.0 %, 0.100 s",
        "app/a.py:f: 90.0 %, 0.900 s",
        "app/a.py:g: 75.0 %, 0.750 s",
    ]
    assert [float(rect["width"]) for rect in drawn.values()] == [1080, 120, 1080, 900]
    assert [int(rect["y"]) for rect in drawn.values()] == [24, 24, 41, 58]


def test_flame_graph_of_odd_names_is_xml(tmp_path):
    text = profiled(tmp_path / "p.svg", lambda: run_in_thread(lambda: spin(0.1), '<&">\x01'))
    assert "the profiler itself" in text
    assert any('<&">?' in str(title.text) for title in ElementTree.fromstring(text).iter(f"{SVG}title"))


def test_flame_graph_of_nothing_is_empty():
    assert ElementTree.fromstring(flame_graph({}, "nothing")).findall(f"{SVG}g") == []


def test_signal_after_the_end_does_nothing(tmp_path):
    text = profiled(tmp_path / "p.txt", lambda: spin(0.05))
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
    signal.raise_signal(signal.SIGPROF)
    assert (tmp_path / "p.txt").read_text() == text


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "expected the name of a file, got the directory"),
        ("nowhere/p.svg", "no directory .*nowhere to write p.svg to"),
        ("file/p.svg", "no directory .*file to write p.svg to"),
        ("n" * 300, "cannot be written: File name too long"),
    ],
)
def test_file_that_cannot_be_written_is_refused(tmp_path, name, complaint):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=f"setting profile: .*{complaint}"):
        Profiler(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_system_without_clocks_of_threads_is_refused(tmp_path, monkeypatch):
    monkeypatch.delattr(time, "pthread_getcpuclockid")
    with pytest.raises(SettingsError, match=f"setting profile: {sys.platform} has no"):
        Profiler(tmp_path / "p.svg")


def test_profile_that_cannot_be_written_at_the_end_is_logged(tmp_path, caplog):
    (tmp_path / "there").mkdir()
    profiler = Profiler(tmp_path / "there" / "p.svg")
    profiler.start()
    (tmp_path / "there").rmdir()
    profiler.stop()
    assert "the profile cannot be written: " in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_that_is_stopped_leaves_a_profile_of_its_load(few, data, tmp_path, number):
    file = tmp_path / "p.txt"
    with running_server("--profile", file, data=data, checkpoints=few) as server:
        load(server)
        assert not file.exists()
        server.stop(number)
    assert f"the profile is in {file}" in server.log
    assert seconds_within(file.read_text(), "app/engine/worker.py:Worker._step")
    assert not re.search(r"<module>|Thread\._bootstrap", file.read_text())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("p.")] == ["p.txt"]


def test_flame_graph_of_a_server_shows_in_a_browser(few, data, tmp_path, browser):
    file = tmp_path / "p.svg"
    with running_server(data=data, checkpoints=few, ENGRAM_PROFILE=str(file)) as server:
        load(server)
    with open_page(browser, file.as_uri()) as page:
        page.goto(file.as_uri())
        assert re.fullmatch(r"[\d.]+ s of processor time in .* its share", page.locator("text").first.text_content())
        assert page.locator("title", has_text="Runner.run").count() >= 1


def test_server_whose_profile_cannot_be_written_does_not_start(few, data, tmp_path):
    server = Server("--profile", tmp_path / "nowhere" / "p.svg", data=data, checkpoints=few)
    assert server.process.wait(timeout=60) == 1
    assert server.log.startswith("engram: setting profile: no directory")
