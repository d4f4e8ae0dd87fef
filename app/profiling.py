"""A sampling profiler of a running process: the processor time of every thread, by the functions that used it.

    timer of processor time --> main thread: add each thread's time since the last sample to its current stack
    stop --> file: a flame graph (.svg), or folded stacks, which speedscope and flamegraph.pl read

An idle process is not sampled, an idle thread counts nothing, and a thread in C code counts although it does not hold
the interpreter's lock. Python runs the handler between two calls of the main thread, so a function that calls nothing
counts as its caller, and C code as the function that called it; the C code of the event loop counts as `Runner.run`.
While the main thread waits, it runs the handler only if a signal wakes it, as signals wake uvloop. Other threads are
sampled where they release the interpreter's lock: their totals are exact, and their stacks are coarser.
"""

import html
import itertools
import linecache
import logging
import os
import re
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from zlib import crc32

from app.futures import report
from app.settings import SettingsError

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.004
"""Processor time between two samples. Linux kernels count it in ticks, which are of this length by default."""

WAITING = re.compile(r"\.(acquire|get|join|poll|recv|run_until_complete|select|wait)\(")
"""Matches lines in which a thread waits: time that is sampled there was used before, and belongs to other stacks."""

CALLING = -1
"""The place of a function that was about to call another one."""

PROFILER = "the profiler itself"
OTHER_THREADS = "threads without Python"

Stacks = Mapping[tuple[str, ...], float]
"""Seconds by stack: the thread's name, then its functions, the outermost first."""


@dataclass
class _Sampled:
    """A stack of a thread, the innermost function first, and the place in that function (f_lasti), or CALLING."""

    thread: str
    place: int
    codes: list[CodeType]
    seconds: float = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether the innermost function is in a line that waits."""
        if self.place == CALLING:
            return False
        code = self.codes[0]
        line = next(itertools.islice(code.co_positions(), self.place // 2, None), (None,))[0]
        return line is not None and bool(WAITING.search(linecache.getline(code.co_filename, line)))


class Profiler:
    """Samples this process between `start` and `stop`, and writes the profile. Used by the main thread only.

    Threads that start before `start` block the timer's signal, so that the main thread receives it and samples at once.
    A signal to a later thread may be handled only after the main thread has waited for something.
    """

    def __init__(self, path: Path) -> None:
        """Prepare to write a profile to `path`.

        Raises SettingsError if this system has no timers for it, or the path cannot be written.
        """
        if not hasattr(signal, "setitimer") or not hasattr(time, "pthread_getcpuclockid"):
            raise SettingsError(f"setting profile: {sys.platform} has no timers and clocks of threads; use Linux")
        self._path = path
        self._unfinished = path.with_name(f"{path.name}.part") if path.name else path
        _check_writable(path, self._unfinished)
        self._sampled: dict[tuple[object, ...], _Sampled] = {}
        """By thread, place and the ids of the functions: to hash the functions themselves takes long."""
        self._clocks: dict[int, float] = {}
        """Processor time of each thread at its last sample, by the id of its clock."""
        self._names: dict[int, str] = {}
        self._samples = 0
        self._own = 0.0
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})

    def start(self) -> None:
        """Begin to sample."""
        self._main = threading.get_ident()
        self._began, self._began_process = time.perf_counter(), time.process_time()
        for thread in sys._current_frames():
            clock = time.pthread_getcpuclockid(thread)
            self._clocks[clock] = time.clock_gettime(clock)
        signal.signal(signal.SIGPROF, lambda _, frame: report(self._sample, frame))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def stop(self) -> None:
        """Stop sampling, and write the profile; log an error of writing."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, lambda *_: None)  # a pending signal would end the process by default
        stacks = self._stacks(time.process_time() - self._began_process)
        title = (
            f"{sum(stacks.values()):.2f} s of processor time in {time.perf_counter() - self._began:.2f} s, "
            f"{self._samples} samples; point at a box for its share"
        )
        text = flame_graph(stacks, title) if self._path.suffix == ".svg" else folded(stacks)
        try:
            self._unfinished.write_text(text, "utf-8")
            self._unfinished.replace(self._path)
        except OSError as error:
            logger.error("the profile cannot be written: %s", error)
        else:
            logger.info("the profile is in %s: %s", self._path, title)

    # In the signal's handler

    def _sample(self, interrupted: FrameType | None) -> None:
        frames = sys._current_frames()
        frames.pop(self._main)  # it is this function
        if interrupted is not None:
            frame = _at_work(interrupted)
            self._add(self._main, frame, frame.f_lasti if frame is interrupted else CALLING)
        for thread, frame in frames.items():
            self._add(thread, frame, frame.f_lasti)
        self._samples += 1
        clock, now = time.pthread_getcpuclockid(self._main), time.thread_time()
        self._own += now - self._clocks[clock]
        self._clocks[clock] = now

    def _add(self, thread: int, frame: FrameType, place: int) -> None:
        """Add the time that a thread used since its last sample to its stack."""
        try:
            clock = time.pthread_getcpuclockid(thread)
            now = time.clock_gettime(clock)
        except OSError:  # it has just ended
            return
        seconds = now - self._clocks.get(clock, 0.0)
        self._clocks[clock] = now
        if seconds > 0:
            name = self._names.get(clock) or self._name(clock, thread)
            codes = _codes(frame)
            key = (name, place, *map(id, codes))
            sampled = self._sampled.get(key)
            if sampled is None:
                sampled = self._sampled[key] = _Sampled(name, place, codes)
            sampled.seconds += seconds

    def _name(self, clock: int, thread: int) -> str:
        names = {known.ident: known.name for known in threading.enumerate()}
        return self._names.setdefault(clock, names.get(thread, f"thread {thread}"))

    # Afterwards

    def _stacks(self, total: float) -> dict[tuple[str, ...], float]:
        """Return the seconds by stack. total: processor time of this process while it was sampled."""
        found: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for sampled, seconds in _at_work_only(list(self._sampled.values())):
            found[_plain(sampled.thread), *map(_function, reversed(sampled.codes))] += seconds
        main = _plain(threading.main_thread().name)
        stacks = _without_launch(found, main)
        stacks[main, PROFILER] += self._own
        stacks[(OTHER_THREADS,)] += max(0.0, total - sum(stacks.values()))
        return {stack: seconds for stack, seconds in stacks.items() if seconds > 0}


def _check_writable(path: Path, unfinished: Path) -> None:
    """Raise SettingsError unless a file can be written to `path`, by a move from `unfinished`."""
    try:
        if path.is_dir():
            raise SettingsError(f"setting profile: expected the name of a file, got the directory {path}")
        if not path.parent.is_dir():
            raise SettingsError(f"setting profile: no directory {path.parent} to write {path.name} to")
        unfinished.touch()
        unfinished.unlink()
    except OSError as error:
        raise SettingsError(f"setting profile: {path} cannot be written: {error.strerror}") from error


def _at_work(frame: FrameType) -> FrameType:
    """Return the frame that was at work when the signal came: a frame in its first line has not begun."""
    begins = frame.f_lineno == frame.f_code.co_firstlineno
    return frame.f_back if begins and frame.f_back is not None else frame


def _codes(frame: FrameType | None) -> list[CodeType]:
    """Return the functions of a stack, the innermost first."""
    codes = []
    while frame is not None:
        codes.append(frame.f_code)
        frame = frame.f_back
    return codes


def _at_work_only(samples: Sequence[_Sampled]) -> Iterator[tuple[_Sampled, float]]:
    """Yield stacks with their seconds; time sampled while a thread waits is spread over its other stacks, if any."""
    at_work: defaultdict[str, float] = defaultdict(float)
    waiting: defaultdict[str, float] = defaultdict(float)
    for sampled in samples:
        (waiting if sampled.is_waiting else at_work)[sampled.thread] += sampled.seconds
    for sampled in samples:
        if not at_work[sampled.thread]:
            yield sampled, sampled.seconds
        elif not sampled.is_waiting:
            yield sampled, sampled.seconds * (1 + waiting[sampled.thread] / at_work[sampled.thread])


def _function(code: CodeType) -> str:
    """Return file:function, with the file relative to sys.path."""
    inside = [folder for folder in map(os.path.abspath, sys.path) if code.co_filename.startswith(folder + os.sep)]
    file = code.co_filename[len(max(inside, key=len)) + 1 :] if inside else code.co_filename
    return _plain(f"{file}:{code.co_qualname}")


def _plain(name: str) -> str:
    """Return a name without the separator of folded stacks and without characters that XML does not allow."""
    return "".join(letter if letter.isprintable() else "?" for letter in name.replace(";", ","))


def _without_launch(stacks: Stacks, main: str) -> defaultdict[tuple[str, ...], float]:
    """Remove the functions that start threads; from the main thread's stacks, their common prefix but for the last."""
    of_main = [stack for stack in stacks if stack[0] == main]
    launch = max(1, _shared(min(of_main), max(of_main)) - 1) if of_main else 1
    shorter: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for stack, seconds in stacks.items():
        functions = stack[launch:] if stack[0] == main else itertools.dropwhile(_starts_thread, stack[1:])
        shorter[stack[0], *functions] += seconds
    return shorter


def _starts_thread(function: str) -> bool:
    return function.startswith("threading.py:Thread.")


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Return the length of the common prefix of two stacks."""
    differing = (place for place, names in enumerate(zip(one, other, strict=False)) if names[0] != names[1])
    return next(differing, min(len(one), len(other)))


def folded(stacks: Stacks) -> str:
    """Return one line for each stack: thread;function;... and its microseconds."""
    return "".join(f"{';'.join(stack)} {round(1e6 * seconds)}\n" for stack, seconds in sorted(stacks.items()))


# The flame graph

WIDTH = 1200
ROW = 17
HEAD = 24
LETTER = 6.65
"""The width of a letter of 11 pixels, in pixels."""

LEAST_WIDTH = 0.2
"""Narrower boxes are left out; in pixels."""

OWN_HUE, OTHER_HUE = 32, 205
"""The hues of the project's functions and of all others."""

STYLE = "text{font:11px monospace;pointer-events:none}rect{stroke:#fff;stroke-width:.5}g:hover>rect{stroke:#000}"


@dataclass
class _Box:
    """A function in a tree of calls: its seconds, including those of the functions that it calls."""

    name: str
    seconds: float = 0.0
    callees: "dict[str, _Box]" = field(default_factory=dict)


def flame_graph(stacks: Stacks, title: str) -> str:
    """Return an SVG of boxes whose widths are their seconds: threads at the top, callees below their callers."""
    root = _nested(stacks)
    boxes = list(_placed(root))
    height = HEAD + ROW * (max((row for _, row, _, _ in boxes), default=0) + 1) + 4
    drawn = "".join(_drawn(box, row, x, width, root.seconds) for box, row, x, width in boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f'<style>{STYLE}</style>\n<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text x="4" y="16">{html.escape(title)}</text>\n{drawn}</svg>\n'
    )


def _nested(stacks: Stacks) -> _Box:
    root = _Box("all")
    for stack, seconds in stacks.items():
        box = root
        box.seconds += seconds
        for name in stack:
            box = box.callees.setdefault(name, _Box(name))
            box.seconds += seconds
    return root


def _placed(root: _Box) -> Iterator[tuple[_Box, int, float, float]]:
    """Yield every box below the root that is wide enough, with its row, x and width; wider boxes stand further left."""
    scale = WIDTH / root.seconds if root.seconds else 0.0
    left = [(root, -1, 0.0)]
    while left:
        above, row, x = left.pop()
        for box in sorted(above.callees.values(), key=lambda box: -box.seconds):
            width = box.seconds * scale
            if width >= LEAST_WIDTH:
                yield box, row + 1, x, width
                left.append((box, row + 1, x))
            x += width


def _drawn(box: _Box, row: int, x: float, width: float, total: float) -> str:
    y, name = HEAD + ROW * row, html.escape(box.name)
    text = html.escape(_fitting(box.name, int((width - 4) / LETTER)))
    return (
        f"<g><title>{name}: {100 * box.seconds / total:.1f} %, {box.seconds:.3f} s</title>"
        f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{ROW - 1}" fill="{_color(box.name)}"/>'
        + (f'<text x="{x + 3:.2f}" y="{y + 12}">{text}</text>' if text else "")
        + "</g>\n"
    )


def _fitting(name: str, letters: int) -> str:
    """Return the name, its last part, or the beginning of that: the longest that fits."""
    short = name.rpartition(":")[2]
    if len(name) <= letters:
        return name
    if len(short) <= letters:
        return short
    return f"{short[: letters - 1]}…" if letters > 2 else ""


def _color(name: str) -> str:
    hue = OWN_HUE if name.startswith(("app/", "models/")) else OTHER_HUE
    return f"hsl({hue + crc32(name.encode()) % 21 - 10},75%,{70 + crc32(name.encode()) % 13}%)"
