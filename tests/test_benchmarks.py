"""The output of `engram bench`, never its times; and that nothing wrong is timed."""

import dataclasses
import http.server
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from websockets.sync.server import serve as serve_websockets

from app.backends.onnx import OnnxBackend
from benchmarks import durability, fairness, million, replicas, server, sessions
from benchmarks.kernels import profile, profiled, serving, sizes, training
from benchmarks.kernels.floor import work
from benchmarks.kernels.report import TABLES
from benchmarks.kernels.sizes import SIZES, random_bits, random_model
from benchmarks.load import SOURCE, LoadFailed, LoadRequest, program, running_load
from benchmarks.peers import Peer
from benchmarks.serve import graphs, idle, measuring, tables
from benchmarks.serve.paths import BESIDE_PEERS, PATHS, Asked, UnknownPath
from benchmarks.serve.servers import (
    PEERS_RECIPE,
    SERVERS,
    TRITON,
    Running,
    chosen_servers,
    command_lines,
    running_servers,
)
from benchmarks.serve.setting import Setting
from benchmarks.table import figure
from benchmarks.timing import WrongOutputs, check_close, medians
from benchmarks.training import report as trainer_benchmark
from benchmarks.training import updates
from benchmarks.training.parts import COLUMNS, parts, stopwatch
from benchmarks.training.plan import PRESETS, preset
from benchmarks.training.scripts import Script, copy_episode, functions
from benchmarks.worst_clients import CLIENTS
from benchmarks.worst_requests import BODY, REQUESTS, Attacker
from engram import main as cli
from engram.commands import bench as commands
from kernels.library import library
from kernels.step import FusedStep
from models.contract import unroll
from models.manifest import read_manifest
from tests import haproxy
from tests.training.one_step import DETECTOR, cell, detector, imported
from training.run_metrics import RunMetrics, read_metrics
from training.tasks import Copy
from training.trainer import Trainer

ROOT = Path(__file__).parents[1]
BATCH = 3

ROWS = {
    "step": [f"S | {BATCH}", f"NTM | {BATCH}"],
    "arena": [f"S | {BATCH}"],
    "threads": [f"S | {BATCH}"],
    "calls": [f"S | {BATCH}", f"NTM | {BATCH}"],
    "training": [f"{model} | {BATCH} | {by}" for model in ("NTM", "DNC R=4", "DNC R=1") for by in ("fused", "torch")],
    "training-threads": [f"NTM | {BATCH}", f"DNC R=4 | {BATCH}"],
}
"""The labels of each table's rows, for S, NTM and one batch."""


def engram(*words):
    command = [sys.executable, "-m", "engram", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)


def complaints(done):
    """Return the lines of the error output that report no progress."""
    return [line for line in done.stderr.splitlines() if " gone, " not in line]


@pytest.fixture(scope="module")
def report():
    done = engram("bench", "kernels", "--quick", "--sizes", "S", "NTM", "--batches", BATCH)
    assert done.returncode == 0, done.stderr
    assert complaints(done) == []
    return done.stdout


@pytest.fixture(scope="module")
def one_model(tmp_path_factory):
    """A directory with one shipped model: a server of it starts sooner than one of all."""
    directory = tmp_path_factory.mktemp("one")
    (directory / "dnc-copy").symlink_to(ROOT / "checkpoints" / "dnc-copy")
    return directory


@pytest.fixture
def threads():
    """Restore the number of torch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# The report


def test_report_names_command_and_machine(report):
    first, second, _ = report.splitlines()[:3]
    assert first.startswith(f"`engram bench kernels --quick --sizes S NTM --batches {BATCH}` on ")
    assert f"torch {torch.__version__.split('+')[0]}, " in second


@pytest.mark.parametrize("name", TABLES)
def test_table_has_its_heading_and_a_row_for_each_case(report, name):
    head = TABLES[name].head()
    assert head in report
    body = report.split(head)[1].lstrip("\n").split("\n\n")[0].splitlines()
    assert [row for row, label in zip(body, ROWS[name], strict=True) if row.startswith(f"| {label} | ")] == body
    assert all(row.count(" | ") + 1 == len(TABLES[name].columns) for row in body)
    assert all(re.fullmatch(r"[\d,]+(\.\d+)?", cell) for row in body for cell in row.strip("| ").split(" | ")[3:])


def test_profile_without_perf_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    words = ["bench", "kernels", "--quick", "--tables", "calls", "--sizes", "S", "--batches", "1", "--profile"]
    assert cli.main(words) == 1
    assert capsys.readouterr().err == "engram: --profile needs Linux's perf, which is not installed\n"


@pytest.mark.parametrize("case", profile.CASES)
def test_profiled_case_runs(case):
    assert profiled.prepared(case, library())() is not None


def test_performance_page_has_every_table_as_it_is_printed_now():
    page = (ROOT / "docs" / "performance.md").read_text()
    printed = page.split("<!-- engram bench kernels -->")[1].split("<!-- end -->")[0]
    assert all(table.head() in printed for table in TABLES.values())
    assert all(f"| {size} | 64 | " in printed for size in SIZES)


@pytest.mark.parametrize(
    ("value", "shown"), [(3, "3"), (1234567.8, "1,234,568"), (99.94, "99.9"), (9.994, "9.99"), (0.051, "0.05")]
)
def test_figure_has_the_digits_that_count(value, shown):
    assert figure(value) == shown


@pytest.fixture(scope="module")
def training_report(tmp_path_factory):
    done = engram("bench", "training", "--quick", "--batches", 2, "--peers", tmp_path_factory.mktemp("empty"))
    assert done.returncode == 0, done.stderr
    assert complaints(done) == []
    return done.stdout


def test_training_report_names_missing_peers_and_their_installation(training_report):
    assert "\nLeft out: pytorch-ntm, dnc-mthrok, dnc-1.1.0, not found in " in training_report
    assert "\ngit clone https://github.com/mthrok/dnc_pytorch " in training_report
    assert "\n\nBeside no public implementation: " in training_report


def test_training_report_has_a_row_for_each_model_and_path(training_report):
    body = training_report.split(updates.UPDATES.head())[1].lstrip("\n").split("\n\n")[0].splitlines()
    expected = [f"| {model} | 2 | {path} | " for model in PRESETS for path in ("fused", "torch")]
    assert [row for row, start in zip(body, expected, strict=True) if row.startswith(start)] == body


def test_training_report_takes_an_update_of_each_model_apart(training_report):
    cells = cells_of(training_report, "parts")
    assert [row[:2] for row in cells] == [[model, "2"] for model in PRESETS]
    assert all(float(cell.replace(",", "")) > 0 for row in cells for cell in row[2:])


def test_training_report_has_each_model_by_two_threads(training_report):
    cells = cells_of(training_report, "threads")
    assert [row[:2] for row in cells] == [[model, batch] for model in PRESETS for batch in ("2", "8")]
    assert all(float(cell.replace(",", "")) > 0 for row in cells for cell in row[2:])


def cells_of(report, name):
    """Return the cells of a table of the training benchmark, row by row."""
    body = report.split(trainer_benchmark.TABLES[name].head())[1].split("\n\n")[0].strip().splitlines()
    return [row.strip("| ").split(" | ") for row in body]


def test_performance_page_has_the_printed_tables_of_training():
    page = (ROOT / "docs" / "performance.md").read_text()
    printed = page.split("<!-- engram bench training -->")[1].split("<!-- end -->")[0]
    assert all(table.head() in printed for table in trainer_benchmark.TABLES.values())
    assert "\nThe least gain: " in printed


@pytest.mark.slow
def test_served_steps_prints_a_row_for_each_number_of_sessions(one_model, tmp_path):
    words = ["--sessions", 1, 3, "--seconds", 0.05, "--rounds", 1, "--checkpoints", one_model]
    words += ["--json", tmp_path / "all.json"]
    done = engram("bench", "served-steps", *words)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("| ")] == ["sessions", "1", "3"]
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["command"].startswith("engram bench served-steps --sessions 1 3 ")
    [table] = written["tables"]
    assert (table["columns"][0], [row[0] for row in table["rows"]]) == ("sessions", [1, 3])


@pytest.fixture(scope="module")
def serve_run(one_model, tmp_path_factory):
    """A run of `engram bench serve`: its output, and the directory of its files."""
    place = tmp_path_factory.mktemp("serve")
    (place / "data").mkdir()
    words = ["--connections", 1, 3, "--rounds", 2, "--seconds", 0.02, "--open-loop", 50, "--data-root", place / "data"]
    words += ["--json", place / "all.json", "--plot", place / "all.png", "--checkpoints", one_model]
    done = engram("bench", "serve", *words)
    assert done.returncode == 0, done.stderr
    assert complaints(done) == []
    return done.stdout, place


def rows_of(printed, table):
    """Return the cells of a table's rows."""
    body = printed.split(table.head())[1].lstrip("\n").split("\n\n")[0].splitlines()
    return [row.strip("| ").split(" | ") for row in body]


def served_by(path):
    """Return the servers that a run measures here on a path."""
    engram_servers = ["ack", "none"] if path.sessions else ["ack"]
    here = Setting(ROOT / "checkpoints", "dnc-copy", 1, ROOT)
    return [*engram_servers, *(name for name in path.beside if not SERVERS[name].remedy(here) and name != TRITON)]


def test_serve_has_rows_by_path_connections_and_server(serve_run):
    printed, place = serve_run
    cells = rows_of(printed, tables.SERVED)
    expected = [[path, count, name] for path in PATHS for count in "13" for name in served_by(PATHS[path])]
    assert [row[:3] for row in cells] == expected
    assert {row[-1] for row in cells} == {"0"}, "errors"
    assert {len(row) for row in cells} == {len(tables.SERVED.columns)}
    assert list((place / "data").iterdir()) == []


def test_serve_report_names_machine_and_commands_of_servers(serve_run):
    printed, _ = serve_run
    assert printed.startswith("`engram bench serve --connections 1 3 --rounds 2 ")
    assert re.search(r"; (libengram-linux-\S+|no fused kernels)\.\n", printed)
    flags = r"--max-batch 768 --max-queue 1024 --max-resident 4096 --max-connections \d+ --durability ack"
    assert re.search(f"; `engram serve {flags}`\n", printed)
    assert all(f"\n- {name}: " in printed for name in (*PATHS, "ack", "none", "echo", "picows", "plain", "ceiling"))
    assert "\n- triton: left out; pip install --no-deps --target DIR nvidia-pytriton==" in printed


def test_serve_prints_ratios_and_the_open_loop(serve_run):
    printed, _ = serve_run
    cells, open_loop = rows_of(printed, tables.RATIOS), rows_of(printed, tables.OPEN_LOOP)
    labels = [[path, count, "ack"] for path in PATHS for count in "13"]
    assert [row[:3] for row in cells] == [row[:3] for row in open_loop] == labels
    assert all(float(row[3].replace(",", "")) > 0 for row in cells)
    assert {row[3] for row in open_loop} == {"50%"}


def test_serve_writes_every_turn_as_json_and_a_plot(serve_run):
    _, place = serve_run
    results = json.loads((place / "all.json").read_text())["results"]
    turns = {(turn["path"], turn["connections"], turn["server"]) for result in results for turn in result["turns"]}
    assert turns == {(path, count, name) for path in PATHS for count in (1, 3) for name in served_by(PATHS[path])}
    assert all(len(result["turns"]) == 2 * len(served_by(PATHS[result["path"]])) + 1 for result in results)
    assert (place / "all.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_peers_has_rows_for_servers_and_commands_for_missing(one_model, tmp_path):
    words = ["--connections", 1, 3, "--rounds", 1, "--seconds", 0.05, "--data-root", tmp_path]
    done = engram("bench", "peers", *words, "--packages", tmp_path, "--checkpoints", one_model)
    assert done.returncode == 0, done.stderr
    cells, here = rows_of(done.stdout, tables.PEERS), served_by(BESIDE_PEERS)
    assert [row[:2] for row in cells] == [[count, name] for count in "13" for name in here]
    assert {row[-1] for row in cells} == {"0"}, "errors"
    assert {row[8:11] == ["1.00"] * 3 for row in cells if row[1] == "ack"} == {True}
    assert all(f"\n- {name}: " in done.stdout for name in BESIDE_PEERS.beside)
    assert list(tmp_path.iterdir()) == []


def test_missing_peer_is_left_out_with_its_installation(setting, tmp_path):
    names, reported = chosen_servers(["ack"], ["litserve", "ray"], setting)
    assert names == ["ack"]
    assert reported == [f"- {name}: left out; {PEERS_RECIPE}" for name in ("litserve", "ray")]
    for package in ("litserve", "ray"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    with_packages = dataclasses.replace(setting, packages=tmp_path)
    assert chosen_servers(["ack"], ["litserve", "ray"], with_packages) == (["ack", "litserve", "ray"], [])
    [line] = command_lines(["ray"], with_packages)
    assert f"`env PYTHONPATH={tmp_path.name} python -m engram.room benchmarks.floors.ray_serve dnc-copy 4`" in line


@pytest.mark.slow
def test_another_checkout_is_measured_beside_this_one(one_model, tmp_path):
    words = ["--paths", "post", "infer", "--connections", 1, "--rounds", 1, "--seconds", 0.02, "--data-root", tmp_path]
    done = engram("bench", "serve", *words, "--durability", "ack", "--before", ROOT, "--checkpoints", one_model)
    assert done.returncode == 0, done.stderr
    servers = [row[:3] for row in rows_of(done.stdout, tables.SERVED)]
    assert [[path, "1", "before-ack"] for path in ("post", "infer")] == [row for row in servers if "before" in row[2]]
    cells = rows_of(done.stdout, tables.CHANGED)
    assert [row[:4] for row in cells] == [[path, "1", "ack", "before-ack"] for path in ("post", "infer")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", ["post", "streams"])
def test_path_unknown_to_the_other_checkout_is_left_out(engram_alone, setting, path):
    gone = dataclasses.replace(PATHS[path], target="/no/such" + PATHS[path].target)
    before = dataclasses.replace(engram_alone, name="before-none")
    plan = measuring.ServePlan(setting, {"before-none": before}, [gone], [1], 1, 0.1, [])
    assert list(measuring.check_all(plan)) == [f"- before-none: left out on {path}, a path that it does not have"]
    assert plan.names(gone) == []
    with pytest.raises(UnknownPath, match=f"not timed, {path}: "):
        list(measuring.check_all(dataclasses.replace(plan, servers={"none": engram_alone})))


def test_directory_without_checkout_or_kernels_is_refused_first(tmp_path, capsys):
    words = ["bench", "serve", "--before", str(tmp_path), "--data-root", str(tmp_path)]
    assert cli.main(words) == 1
    assert f"--before: {tmp_path} is no checkout of Engram; git worktree add DIR COMMIT" in capsys.readouterr().err
    (tmp_path / "engram").mkdir()
    (tmp_path / "engram" / "main.py").touch()
    (tmp_path / "kernels").mkdir()
    assert cli.main(words) == 1
    printed = capsys.readouterr()
    assert re.search(r"has no kernels to run, .*; build them: \(cd .* -m kernels\.build\)", printed.err)
    assert printed.out == ""


@pytest.fixture(scope="module")
def graphs_directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("graphs")
    for name, arguments in (("cell", (cell(),)), ("detector", (detector(), DETECTOR))):
        (root / f"of-{name}").mkdir()
        imported(root / f"of-{name}", *arguments)
        (root / f"of-{name}" / "model").rename(root / name)
    return root


@pytest.mark.slow
def test_graphs_have_rows_by_model_durability_and_connections(graphs_directory, tmp_path):
    words = ["--checkpoints", graphs_directory, "--connections", 1, 3, "--rounds", 1, "--seconds", 0.02]
    done = engram("bench", "graphs", *words, "--data-root", tmp_path)
    assert done.returncode == 0, done.stderr
    cells = rows_of(done.stdout, graphs.GRAPHS)
    expected = [[name, count, log] for name in ("cell", "detector") for log in ("ack", "none") for count in "13"]
    assert [[row[0], row[2], row[3]] for row in cells] == expected
    assert {(row[1], row[-1]) for row in cells} == {("batched", "0")}
    assert list(tmp_path.iterdir()) == []


def test_inputs_of_graphs_are_in_range_and_vocabulary(graphs_directory):
    manifest = read_manifest(graphs_directory / "detector")
    assert np.abs(graphs.draw_inputs(manifest, 50, 0)).max() <= 1
    of_tokens = dataclasses.replace(
        manifest, input_size=1, config=manifest.config | {"embedding": {"vocabulary_size": 3}}
    )
    of_tokens.config["graph"]["inputs"][0]["shape"] = []
    assert {float(token) for token in graphs.draw_inputs(of_tokens, 50, 0)[:, 0]} == {0, 1, 2}


@pytest.mark.slow
def test_graph_that_differs_in_one_bit_is_not_timed(graphs_directory, tmp_path, monkeypatch):
    class Another(OnnxBackend):
        def step(self, *arguments):
            outputs, traces = super().step(*arguments)
            return np.nextafter(outputs, np.float32(2)), traces

    with server.running_server(graphs_directory, tmp_path / "data", "--durability", "none") as serving:
        running = Running("none", SERVERS["none"], serving, "detector", 16)
        graphs.check(graphs_directory / "detector", running)
        monkeypatch.setattr(graphs, "OnnxBackend", Another)
        with pytest.raises(WrongOutputs, match="not timed, none: outputs of detector: expected "):
            graphs.check(graphs_directory / "detector", running)


def test_import_page_has_the_printed_table_of_graphs():
    page = (ROOT / "docs" / "import.md").read_text()
    printed = page.split("<!-- engram bench graphs -->")[1].split("<!-- end -->")[0]
    assert graphs.GRAPHS.head() in printed
    assert {row[0] for row in rows_of(printed, graphs.GRAPHS)} == {"silero", "dtln", "policy", "series"}


def test_directory_without_graphs_is_refused(tmp_path, capsys):
    assert cli.main(["bench", "graphs", "--checkpoints", str(tmp_path)]) == 1
    assert f"{tmp_path}: no imported graph is there to measure; engram import" in capsys.readouterr().err


@pytest.mark.slow
def test_idle_connections_are_opened_without_errors(one_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(idle, "ALL_AT_ONCE", 20)
    words = ["--idle", "8", "--data-root", str(tmp_path), "--checkpoints", str(one_model)]
    assert cli.main(["bench", "serve", *words]) == 0
    cells = rows_of(capsys.readouterr().out, idle.IDLE)
    assert [row[:3] for row in cells] == [["8", "64", "0"], ["20", "20", "0"]]


@pytest.mark.slow
def test_durability_has_rows_by_durability_and_sessions(one_model, tmp_path):
    words = ["--sessions", 1, 3, "--seconds", 0.05, "--rounds", 1, "--data-root", tmp_path]
    done = engram("bench", "durability", *words, "--checkpoints", one_model)
    assert done.returncode == 0, done.stderr
    assert " an fdatasync takes " in done.stdout
    cells = rows_of(done.stdout, durability.DURABILITY)
    names = [*durability.DURABILITIES, *([] if ": left out, " in done.stdout else [durability.POSTGRES])]
    assert [row[:2] for row in cells] == [[count, name] for count in "13" for name in names]
    assert [row[3] for row in cells if row[1] == "none"] == [row[4] for row in cells if row[1] == "ack"] == 2 * ["1.00"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def public_directory():
    """Return a directory that the user of PostgreSQL can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.slow
def test_durability_has_rows_of_postgres_beside_sqlite(postgres, one_model, public_directory):
    words = ["--sessions", 3, "--seconds", 0.05, "--rounds", 1, "--data-root", public_directory]
    done = engram("bench", "durability", *words, "--checkpoints", one_model)
    assert done.returncode == 0, done.stderr
    assert rows_of(done.stdout, durability.DURABILITY)[-1][:2] == ["3", durability.POSTGRES]
    assert list(public_directory.iterdir()) == []


def module(name, *words):
    """Run a benchmark that has no command, and return what it printed."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_replicas_have_rows_by_sessions_and_servers(postgres, one_model):
    haproxy.program()  # or skip
    words = ["--servers", 2, "--sessions", 1, 3, "--rounds", 1, "--seconds", 0.05, "--checkpoints", one_model]
    printed = module("replicas", *words)
    names = [replicas.SQLITE, replicas.ALONE, replicas.SEVERAL.format(2)]
    cells = rows_of(printed, replicas.REPLICAS)
    assert [row[:2] for row in cells] == [[count, name] for count in "13" for name in names]
    assert [row[3] for row in cells if row[1] == replicas.SQLITE] == ["1.00", "1.00"]


@pytest.mark.slow
def test_million_has_a_row_for_each_kind_of_request(postgres, one_model):
    words = ["--sessions", 150, 300, "--requests", million.TURN + 5, "--checkpoints", one_model]
    cells = rows_of(module("million", *words), million.MILLION)
    assert [row[0] for row in cells] == list(million.KINDS)
    assert all(float(value) > 0 for row in cells for value in row[1:])


@pytest.mark.slow
def test_sessions_are_restored_also_after_a_kill(one_model, tmp_path):
    words = ["--sessions", 40, "--max-resident", 16, "--data-root", tmp_path, "--checkpoints", one_model]
    done = engram("bench", "sessions", *words)
    assert done.returncode == 0, done.stderr
    tables = (sessions.MEMORY, sessions.RATES, sessions.LATENCY)
    bodies = [done.stdout.split(table.head())[1].lstrip("\n").split("\n\n")[0].splitlines() for table in tables]
    assert [len(body) for body in bodies] == [5, 2, 6]
    assert all(row.count(" | ") + 1 == len(sessions.LATENCY.columns) for row in bodies[2])
    assert [row.strip("| ").split(" | ")[1] for row in bodies[2]] == ["8"] * 6


@pytest.mark.slow
def test_fairness_has_a_row_with_status_for_each_request(tmp_path):
    asked = {
        "trace: 4 million numbers": "422 invalid_request",
        "a path of 8 MB": "414 target_too_long",
        "frame: 10,000 steps, the last number NaN": "4422 invalid_input",
        "msgpack: extensions": "4400 malformed_body",
        "a snapshot with a header of 2^60 bytes": "422 invalid_snapshot",
        "frame, msgpack: 10,000 steps, with traces": "result",
        "a batch of 8 MB": "200",
    }
    done = engram("bench", "fairness", "--rounds", 1, "--data-root", tmp_path, "--requests", *asked)
    assert done.returncode == 0, done.stderr
    body = done.stdout.split(fairness.FAIRNESS.head())[1].strip().splitlines()
    cells = [row.strip("| ").split(" | ") for row in body]
    assert {row[0]: row[1] for row in cells} == asked
    assert {len(row) for row in cells} == {len(fairness.FAIRNESS.columns)}
    assert list(tmp_path.iterdir()) == []


def test_performance_page_has_the_printed_tables_of_serving():
    page = (ROOT / "docs" / "performance.md").read_text()
    printed = page.split("<!-- engram bench serve -->")[1].split("<!-- end -->")[0]
    assert all(table.head() in printed for table in (tables.SERVED, tables.RATIOS, tables.OPEN_LOOP, idle.IDLE))
    assert {row[0] for row in rows_of(printed, tables.RATIOS)} == set(PATHS)


def test_performance_page_has_the_printed_table_of_other_servers():
    page = (ROOT / "docs" / "performance.md").read_text()
    printed = page.split("<!-- engram bench peers -->")[1].split("<!-- end -->")[0]
    assert {row[1] for row in rows_of(printed, tables.PEERS)} == {"ack", "none", *BESIDE_PEERS.beside}


def test_performance_page_has_the_table_of_fairness():
    page = (ROOT / "docs" / "performance.md").read_text()
    printed = page.split("<!-- engram bench fairness -->")[1].split("<!-- end -->")[0]
    assert fairness.FAIRNESS.head() in printed
    assert [row.split(" | ")[0].strip("| ") for row in printed.split("|---|\n")[1].strip().splitlines()] == list(
        REQUESTS
    )


def test_performance_page_has_the_table_of_clients():
    page = (ROOT / "docs" / "performance.md").read_text()
    printed = page.split("<!-- engram bench fairness, clients -->")[1].split("<!-- end -->")[0]
    assert fairness.WORST_CLIENTS.head() in printed
    assert [row[0] for row in rows_of(printed, fairness.WORST_CLIENTS)] == list(CLIENTS)


def test_large_requests_are_almost_as_large_as_they_may_be():
    sent: list[bytes] = []

    class Client(Attacker):
        def send(self, method, path, body=b"", headers=None):
            sent.append(body)
            return "200"

    client = Client("host:1", "dnc-copy", 10, {"usage": [32]})
    for name in ("trace: 4 million numbers", "600,000 unknown keys", "3 million empty steps", "a batch of 8 MB"):
        REQUESTS[name](client)
    assert len(REQUESTS) >= 60
    assert all(BODY * 0.98 < len(body) < 8 * 2**20 for body in sent)


# Nothing wrong is timed


def test_outputs_within_the_tolerance_pass():
    check_close("it", np.array([2.0, 1.0]), np.array([2.0, 1.0 + 1e-5]), 1e-4)
    check_close("it", np.zeros(3), np.zeros(3), 0.0)


@pytest.mark.parametrize(
    "wrong", [np.array([2.0, 1.1]), np.array([2.0, np.nan]), np.array([2.0]), np.array([[2.0, 1.0]])]
)
def test_wrong_outputs_are_refused(wrong):
    with pytest.raises(WrongOutputs, match="not timed, it: expected"):
        check_close("it", wrong, np.array([2.0, 1.0]), 1e-4)


def test_last_bit_is_wrong_where_the_same_bits_are_due():
    one = np.ones(1, np.float32)
    with pytest.raises(WrongOutputs):
        check_close("it", np.nextafter(one, 2 * one), one, 0.0)


def test_session_at_another_step_than_answered_is_refused(monkeypatch):
    monkeypatch.setattr(durability, "reached", lambda connection, session: {"a": 7, "b": 6}[session])
    opened = [server.SessionSocket(None, name, answers=7) for name in "ab"]
    with pytest.raises(WrongOutputs, match="ack: a session that gave 7 answers of one step each is at step 6"):
        durability.check_answers("ack", server.Server("host:1", None), opened)


ECHO_WIDTH = 8


@pytest.fixture(scope="module")
def echo():
    with server.running([sys.executable, "-m", "benchmarks.floors.echo", str(ECHO_WIDTH)]) as running:
        yield running


@pytest.fixture
def setting(one_model, tmp_path):
    return Setting(one_model, "dnc-copy", 4, tmp_path)


@pytest.fixture(scope="module")
def engram_alone(one_model, tmp_path_factory):
    """A server of Engram that logs nothing."""
    with running_servers(["none"], Setting(one_model, "dnc-copy", 4, tmp_path_factory.mktemp("alone"))) as servers:
        yield servers["none"]


@pytest.mark.parametrize("path", PATHS)
def test_server_with_wrong_answers_is_not_timed(echo, setting, path):
    wrong = Running("plain", SERVERS["plain"], echo, setting.model, input_size=10)
    with pytest.raises(WrongOutputs, match=f"not timed, plain: outputs over {path}: expected a difference of at most"):
        measuring.check(setting, PATHS[path], wrong)


@pytest.mark.parametrize("path", PATHS)
def test_floor_that_computes_something_is_not_timed(engram_alone, setting, path):
    running = dataclasses.replace(engram_alone, candidate=dataclasses.replace(SERVERS["none"], answers="inputs"))
    with pytest.raises(WrongOutputs, match=f"not timed, none: outputs over {path}: expected a difference"):
        measuring.check(setting, PATHS[path], running)


def test_session_off_its_answers_is_refused_unless_disconnected(setting):
    with running_servers(["ack"], setting) as servers:
        running = servers["ack"]
        measuring.check(setting, PATHS["post"], running)
        running.check_steps()
        [session] = running.open(1)
        running.count(session, 0, 1)
        running.check_steps()
        running.count(session, 1, 0)
        with pytest.raises(WrongOutputs, match="ack: a session that answered 1 steps is at step 0"):
            running.check_steps()


def test_time_of_a_server_includes_its_processes():
    burn = "import time\nwhile time.process_time() < 0.4: pass\nprint('burned', flush=True)\ntime.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout.readline() == b"burned\n"
        assert server.Server("", process).cpu_seconds >= 0.2
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def echo_in_c():
    """The load generator's own server, an echo."""
    with server.running([str(program()), "echo"]) as running:
        yield running


@pytest.mark.parametrize("kind", ["ws-text", "ws-binary", "http"])
@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 3_000_000])
def test_load_counts_every_answer_and_every_byte_of_it(echo_in_c, kind, size):
    requests = [LoadRequest(f"/{number}", bytes(size)) for number in range(3)]
    head = len(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n") if kind == "http" else 2
    head += 0 if kind == "http" or size < 126 else 2 if size < 65536 else 8
    with running_load(kind, echo_in_c.port, requests) as load:
        assert load.connect()[:2] == (3, 0)
        turns = [load.turn(0.02), load.turn(0.02, rate=150)]
        counts = load.counts()
    assert all(turn.bytes == turn.answers * (head + size) for turn in turns)
    assert turns[1].answers == 3, "150 a second for 0.02 s"
    assert sum(counts.sent) == sum(counts.answered) == turns[0].answers + 3
    assert [(turn.errors, turn.unanswered) for turn in turns] == [(0, 0), (0, 0)]


@contextmanager
def websocket_server(handler):
    """Serve WebSockets by a function of the connection, after a greeting; yield the port."""

    def greet(connection):
        connection.send("{}")
        handler(connection)

    with serve_websockets(greet, "127.0.0.1", 0, compression=None) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving.socket.getsockname()[1]
        serving.shutdown()
        thread.join()


def test_latency_of_the_open_loop_counts_from_due_time():
    def slow(connection):
        for message in connection:
            time.sleep(0.05)
            connection.send(message)

    with websocket_server(slow) as port, running_load("ws-text", port, [LoadRequest("/", b"{}")]) as load:
        load.connect()
        turn = load.turn(0.2, rate=50)
    assert turn.answers == 10
    assert turn.p99_ms > 200, "the last was due after 0.18 s and answered after 0.5 s"


def test_load_answers_pings_and_skips_fragments():
    answered = []

    def handler(connection):
        answered.append(connection.ping().wait(20))
        for message in connection:
            answered.append(connection.ping().wait(20))
            connection.send([message, message, message])

    with websocket_server(handler) as port, running_load("ws-text", port, [LoadRequest("/", b"{}")]) as load:
        load.connect()
        turn, counts = load.turn(0.05), load.counts()
    assert answered == [True] * (turn.answers + 1)
    assert counts.answered == [turn.answers]


def move_cache(monkeypatch, directory):
    """Have what is built go to a cache of its own, but not zig: it compiles the C library anew for an empty cache."""
    usual = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(Path(usual, "zig")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory))


@pytest.mark.slow
def test_requests_without_answer_are_counted_once_and_end_turns(tmp_path, monkeypatch):
    source = tmp_path / "load.c"
    source.write_text(SOURCE.read_text().replace("#define GRACE 30.0", "#define GRACE 0.2"))
    monkeypatch.setattr("benchmarks.load.SOURCE", source)
    move_cache(monkeypatch, tmp_path)
    gone = threading.Event()
    with (
        websocket_server(lambda _: gone.wait(60)) as port,
        running_load("ws-text", port, [LoadRequest("/", b"")]) as load,
    ):
        load.connect()
        closed = load.turn(0.05)
        load.connect()
        due = load.turn(0.05, rate=100)
        gone.set()
    assert closed[:3] == (0, 0, 1)
    assert due[:3] == (0, 0, 5)


def test_load_counts_connections_that_break_and_opens_them_again():
    def once(connection):
        connection.send(connection.recv())
        connection.recv()
        connection.close()

    with websocket_server(once) as port, running_load("ws-text", port, [LoadRequest("/", b"{}")] * 3) as load:
        assert load.connect()[:2] == (3, 0)
        assert load.turn(1.0)[:2] == (3, 3)
        assert load.counts() == ([2] * 3, [1] * 3)
        assert load.connect()[:2] == (3, 0)


def test_load_counts_connections_that_are_refused():
    with running_load("http", 1, [LoadRequest("/", b"")] * 2) as load:
        assert load.connect()[:2] == (0, 2)
    with websocket_server(lambda connection: None) as port:
        pass
    with running_load("ws-text", port, [LoadRequest("/", b"")] * 2) as load:
        assert load.connect()[:2] == (0, 2)


class Answering(http.server.BaseHTTPRequestHandler):
    """A server that answers with the status in the path and closes connections that are idle for a while."""

    protocol_version, timeout = "HTTP/1.1", 0.75  # between the times at which requests are due

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(int(self.path[1:]))
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"2\r\n[]\r\n0\r\n\r\n")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def chunking():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving.server_port
        serving.shutdown()
        thread.join()


def test_refused_requests_are_errors_and_no_answers(chunking):
    with running_load("http", chunking, [LoadRequest("/200", b"x"), LoadRequest("/503", b"x")]) as load:
        load.connect()
        turn, counts = load.turn(0.05), load.counts()
    assert counts.answered == [turn.answers, 0]
    assert counts.sent == [turn.answers, turn.errors]
    assert 0 not in counts.sent


@pytest.mark.slow
def test_connection_closed_while_idle_is_opened_again(chunking):
    with running_load("http", chunking, [LoadRequest("/200", b"x")] * 3) as load:
        for _ in range(2):
            assert load.connect()[:2] == (3, 0)
            turn = load.turn(1.5, rate=2)  # the third has its request after a second, and then nothing more comes
    assert (turn.answers, turn.errors) == (3, 0)


def test_load_that_ends_says_at_which_command(echo_in_c):
    ended = pytest.raises(LoadFailed, match="the load generator ended at 'connect 0': load: connect 0: Invalid arg")
    with running_load("http", echo_in_c.port, [LoadRequest("/", b"")]) as load, ended:
        load.connect(0)


@pytest.mark.slow
def test_load_generator_that_cannot_be_compiled_says_why(tmp_path, monkeypatch):
    (tmp_path / "load.c").write_text("int main(void) { return nothing; }")
    monkeypatch.setattr("benchmarks.load.SOURCE", tmp_path / "load.c")
    move_cache(monkeypatch, tmp_path / "cache")
    with pytest.raises(LoadFailed, match="undeclared identifier 'nothing'"):
        program()
    assert list((tmp_path / "cache" / "engram").iterdir()) == []


def test_missing_triton_is_reported_before_anything_is_measured(tmp_path, capsys):
    assert cli.main(["bench", "serve", "--triton", str(tmp_path), "--data-root", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert f"engram: no Triton in {tmp_path}; to get it: pip install --no-deps --target {tmp_path} nvid" in printed.err
    assert printed.out == ""


def test_request_to_triton_numbers_its_sequence_above_0():
    path = PATHS["post"].for_triton
    request = path.request(Asked("dnc-copy", ["s0"], np.ones((1, 1, 2), np.float32)))
    reported = json.loads(request.payload)
    assert request.path == "/v2/models/engram/infer"
    assert reported["parameters"] == {"sequence_id": 1, "sequence_start": False}
    assert reported["inputs"] == [{"name": "INPUT", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 1.0]}]


def test_connections_beyond_the_systems_limit_are_refused_first(capsys):
    assert cli.main(["bench", "serve", "--connections", "1", "100000000"]) == 1
    printed = capsys.readouterr()
    assert re.match(r"engram: 100000000 connections: a process may have \d+ files open here", printed.err)
    assert printed.out == ""


@pytest.mark.parametrize("answer", [{"step": 34, "outputs": [[1.0]]}, {"step": 33, "outputs": [[0.9]]}])
def test_restored_session_with_another_answer_is_refused(answer):
    asked = sessions.Expected(b"", b"", np.ones((sessions.STEPS + 2, 1)))
    with pytest.raises(WrongOutputs, match="not timed, /sessions/a"):
        sessions.step(lambda path, body: answer, "/sessions/a", asked, sessions.STEPS)


def test_neighbour_that_is_answered_something_else_is_refused():
    client = Attacker("host:1", "lstm-copy", 2, {})
    object.__setattr__(client, "outputs", lambda inputs: np.float32([[1], [2]]))
    neighbour = fairness.Neighbour(None, 2, [np.zeros((1, 2))] * 2, [np.float32([1]), np.float32([2.1])])
    with pytest.raises(WrongOutputs, match="lstm-copy: outputs beside other requests"):
        fairness.check(client, neighbour)


def test_unknown_request_is_refused_with_the_known_ones(capsys):
    assert cli.main(["bench", "fairness", "--requests", "a bomb"]) == 1
    assert "--requests: there is no 'a bomb'; expected some of: trace: 4 million numbers; " in capsys.readouterr().err


def test_sessions_that_all_fit_are_too_few(capsys):
    assert cli.main(["bench", "sessions", "--sessions", "8", "--max-resident", "8"]) == 1
    assert "--sessions 8: none has to be woken where 8 are in memory" in capsys.readouterr().err


def test_step_that_goes_wrong_after_a_while_is_refused():
    taken = iter(range(sizes.CHECKED_STEPS))
    steps = {"right": lambda inputs: inputs, "wrong": lambda inputs: inputs + (next(taken) == 7)}
    with pytest.raises(WrongOutputs, match="S at batch 3: outputs by wrong beside those by right"):
        sizes.check_steps("S at batch 3", steps, 3, serving.TOLERANCE)


def test_wrong_gradient_is_refused():
    model = random_model(training.MODELS["DNC R=1"])
    right = training.by_autograd(model)
    training.check_gradients("it", model, training.by_kernels(model, 1), right, 2, training.TOLERANCE)
    with pytest.raises(WrongOutputs, match="gradient of "):
        training.check_gradients("it", model, lambda inputs: 1.01 * right(inputs), right, 2, training.TOLERANCE)


def peer(loss):
    """Return a public implementation whose loss is `loss`."""
    return Peer("theirs", "ntm", 1, torch.nn.Linear(9, 8), loss)


def test_public_implementation_that_does_not_learn_is_refused():
    script = Script(peer(None), lambda lengths, batch: [0.5 for _ in lengths])
    with pytest.raises(WrongOutputs, match=r"theirs: expected the loss .* to fall in 20 updates, got 0.5 at first"):
        updates.check_script(script)


OTHER_LOSS = pytest.raises(WrongOutputs, match="theirs: loss of our model with its weights: expected a difference")


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, nullcontext()), (1.01, OTHER_LOSS)])
def test_peer_with_another_loss_than_its_twin_is_refused(factor, outcome):
    model, falling = random_model(training.NTM), itertools.count(0, -1)

    def loss(inputs, targets):
        outputs, _, _ = unroll(model, inputs, model.initial_state(inputs.shape[1]))
        return factor * binary_cross_entropy_with_logits(outputs, targets)

    with outcome:
        updates.check_script(Script(peer(loss), lambda lengths, batch: [next(falling)], twin=lambda: model))


def test_command_stops_at_wrong_outputs_before_it_prints_a_time(monkeypatch, capsys, threads):
    monkeypatch.setattr(FusedStep, "run", lambda self, slots, inputs: np.zeros((*inputs.shape[:2], 9)))
    assert cli.main(["bench", "kernels", "--quick", "--tables", "calls"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("engram: not timed, S at batch 1: outputs of 16 steps in a call: expected")
    assert printed.out.endswith("|---|---|---|---|---|\n")


# The calls that are timed


def test_candidates_take_turns_and_the_median_is_of_calls():
    called = []
    times = medians({name: lambda name=name: called.append(name) for name in "ab"}, rounds=3, seconds=0.0)
    assert called == ["a", "b"] * 4  # once to warm up
    assert times.keys() == {"a", "b"}


def turn_of(path, name, cpu, rate=1.0):
    numbers = dict.fromkeys(("percent", "load_cpu", "p50_ms", "p99_ms", "p999_ms", "slowest_of_mean"), 1.0)
    return measuring.ServedTurn(path.name, 1, name, cpu=cpu, rate=rate, answers=1, errors=0, **numbers)


def test_ratio_is_the_median_of_those_of_each_round():
    path = PATHS["ws-json"]
    cpus = {"ack": [30.0, 80.0, 100.0], "echo": [10.0, 10.0, 50.0], "idle": [0.0, 0.0, 0.0]}
    turns = {name: [turn_of(path, name, cpu) for cpu in rounds] for name, rounds in cpus.items()}
    compared = measuring.Compared(path, 1, turns, [5.0, 10.0, 50.0], [])
    assert compared.ratio("cpu", "ack", "echo") == 3.0
    assert compared.ratio("cpu", "ack", "echo", with_backend=True) == 2.0
    assert compared.ratio("cpu", "ack", "plain") is compared.ratio("cpu", "plain", "echo") is None
    assert compared.ratio("cpu", "ack", "idle") is None


def test_time_of_a_call_is_that_of_the_clock():
    ticks = itertools.count(0.0, 3.0)
    assert medians({"it": lambda: None}, rounds=1, seconds=5.0, clock=lambda: next(ticks)) == {"it": 3.0}


def test_all_train_on_the_same_lengths_each_turn(tmp_path, monkeypatch):
    trainer, steps, sample = Trainer(preset("DNC R=1", 2)), [], Copy.sample
    lengths = updates.drawn_lengths(trainer.task, 2, 25)

    def observed(*given):
        episode = sample(*given)
        steps.append(len(episode.mask))
        return episode

    monkeypatch.setattr(Copy, "sample", observed)
    with RunMetrics(tmp_path, 0, False) as metrics:
        for _ in range(2):
            updates.train(trainer, metrics, 25)
    assert steps == [2 * length + 2 for length in lengths] * 2
    assert [line["update"] for line in read_metrics(tmp_path)] == [50]


@pytest.mark.parametrize("name", PRESETS)
def test_trainer_has_the_sizes_of_the_public_implementations(name):
    trained, compared = preset(name, 1).model, training.MODELS[name]
    assert dataclasses.replace(trained, input_size=9, output_activation=compared.output_activation) == compared


def test_public_implementations_copy_without_a_start_flag():
    inputs, targets, mask = copy_episode(2, 1)
    a, b = targets[3:, 0]
    nothing, end = torch.zeros(8), torch.eye(9)[8]
    expected = [torch.cat([a, torch.zeros(1)]), torch.cat([b, torch.zeros(1)]), end, torch.zeros(9), torch.zeros(9)]
    assert torch.equal(inputs[:, 0], torch.stack(expected))
    assert torch.equal(targets[:3, 0], torch.stack([nothing] * 3))
    assert mask[:, 0].tolist() == [0, 0, 0, 1, 1]


def test_functions_of_a_script_load_without_its_imports(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("import no_such_package\ndef twice(x):\n    return 2 * x\ndef four():\n    return twice(2)\n")
    four, _ = functions(script, "four", "twice")
    assert four() == 4
    with pytest.raises(ValueError, match=r"train\.py: expected the functions four, five, found four$"):
        functions(script, "four", "five")


def test_parts_of_an_update_count_nothing_twice():
    found = parts({"update": 10.0, "data": 1.0, "by the kernels": 8.0, "sequences": 5.0, "weights": 1.5})
    assert [found[column] for column in COLUMNS] == [10.0, 1.0, 5.0, 1.5, 1.5, 1.0]


def test_stopwatch_times_parts_and_leaves_the_trainer_unchanged():
    update, trainer = Trainer.update, Trainer(preset("DNC R=1", 2), path="fused")
    with stopwatch(trainer) as watch:
        trainer.update()
    assert set(watch.seconds) == {*COLUMNS, "by the kernels"} - {"around them", "the rest"}
    assert all(seconds > 0 for seconds in parts(watch.seconds).values())
    assert Trainer.update is update


def test_least_gain_is_that_beside_a_public_implementation():
    rows = [("NTM", 1, "fused", 50.0, 1.0), ("NTM", 1, "torch", 25.0, 2.0), ("NTM", 1, "x", 1.0, 50.0)]
    rows += [("NTM", 16, "x", 2.0, 25.04), ("NTM", 16, "y", 1.0, 50.0)]
    assert updates.least_gain(rows) == "The least gain: 25.0 times as many sequences as x, NTM at batch 16."


def test_work_of_a_dnc_adds_links_memory_and_matrices():
    n, w, r, hidden, batch = 128, 32, 4, 128, 3
    seen, reported = 9 + r * w + hidden, r * w + 3 * w + 5 * r + 3
    products = 4 * hidden * seen + hidden * reported + (hidden + r * w) * 9
    expected = 2 * products * batch, (8 * n * n + 8 * n * w + 8 * (3 + r) * n) * batch
    assert work(random_model(SIZES["M"]), batch) == expected


def test_work_of_an_ntm_adds_memory_weightings_and_matrices():
    n, w, hidden = 128, 20, 100
    products = 4 * hidden * (9 + w + hidden) + hidden * (2 * (w + 3 + 3) + 2 * w) + (hidden + w) * 9
    assert work(random_model(SIZES["NTM"]), 1) == (2 * products, 8 * n * w + 8 * 2 * n)


def test_models_and_inputs_are_the_same_at_every_call():
    first, second = (random_model(SIZES["S"]).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert np.array_equal(random_bits(5, 9), random_bits(5, 9))


# The command line


def test_command_line_offers_every_table():
    assert list(TABLES) == commands.kernels.TABLES
    assert list(SIZES) == commands.kernels.SIZES
    assert set(get_args(commands.served_steps.Backend)) == set(server.BACKENDS)
    assert list(PATHS) == commands.serve.PATHS
    assert set(commands.serving.DURABILITIES) == {candidate.durability for candidate in SERVERS.values()} - {""}


def test_missing_peer_is_reported_before_anything_is_measured(tmp_path, capsys, threads):
    assert cli.main(["bench", "kernels", "--peers", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "git clone https://github.com/loudinthecloud/pytorch-ntm" in printed.err
    assert printed.out == ""


def test_missing_extra_is_reported_in_one_line():
    without_torch = (
        "import sys; sys.modules['torch'] = None; from engram.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", without_torch, "bench", "kernels"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 1
    assert re.fullmatch(
        r"engram: .*torch.*: this command needs more packages: in the checkout .* -e '\.\[train\]'\n", done.stderr
    )


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "long"])
def test_invalid_time_is_refused_by_its_option(value, capsys):
    assert cli.main(["bench", "kernels", f"--seconds={value}"]) == 2
    assert f"--seconds: expected a number of seconds above 0, got '{value}'" in capsys.readouterr().err
