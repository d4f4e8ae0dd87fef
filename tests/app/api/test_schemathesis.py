"""Random requests after the OpenAPI document, to a real server: no error of the server, no undocumented answer.

`scripts/test tests/app/api/test_schemathesis.py --examples 1000` is the long form.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.app.api.probable import SESSIONS
from tests.app.harness import ROOT, Server, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # of the long form

SEED = "1"
SHARED = ["--no-color", "--seed", SEED, "--warnings", "off", "--continue-on-failure", "--no-shrink"]
SHARED += ["--exclude-path-regex", "/versions/"]
EXCLUDED = 5
"""Operations under /v2/models/{name}/versions/: their endpoints are those of the paths without a version."""
UNFIT = "positive_data_acceptance"
"""The check that a request of the right form is accepted: no schema says that a step is past the last one."""


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, few: Path) -> Iterator[Server]:
    limits = ["--max-steps", "500", "--max-body-bytes", "200000", "--store", "memory"]
    with running_server(*limits, data=tmp_path_factory.mktemp("probed") / "data", checkpoints=few) as server:
        yield server


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("examples"))


def schemathesis(document: str | Path, directory: Path, *words: str, **environment: str) -> str:
    """Run schemathesis, and return its report."""
    config = Path(__file__).with_name("schemathesis.toml")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    done = subprocess.run(
        [*command, str(document), *SHARED, *words],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )
    return f"{done.stdout}\nexit status {done.returncode}\n{done.stderr}"


def passed(report: str) -> int:
    """Return the number of requests that were all answered as documented."""
    found = re.search(r"(\d+) generated, \1 passed", report)
    assert found, report
    assert "exit status 0" in report, report
    selected, there_are = map(int, re.search(r"Selected: (\d+)/(\d+)", report).groups())
    assert int(re.search(r"Tested: (\d+)", report)[1]) == selected == there_are - EXCLUDED, report
    return int(found[1])


def without_keys(url: str, directory: Path) -> Path:
    """Return a file with the document as it holds for a server that has no keys, and takes requests without one."""
    document = httpx.get(url).json()
    for operation in (operation for methods in document["paths"].values() for operation in methods.values()):
        operation["security"] = []
    file = directory / "open.json"
    file.write_text(json.dumps(document))
    return file


def test_likely_requests_are_answered_as_documented(probed, tmp_path, examples):
    opened = [httpx.post(f"{probed.url}/sessions", json={"model": "dnc-copy"}).json()["id"] for _ in range(3)]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.app.api.probable", SESSIONS: ",".join(opened)}
    words = ["--mode", "positive", "--max-examples", examples, "--exclude-checks", f"{UNFIT},use_after_free"]
    assert passed(schemathesis(f"{probed.url}/openapi.json", tmp_path, *words, **hooks)) > 100
    metrics = httpx.get(f"{probed.url}/metrics").text
    assert float(re.search(r'^engram_steps_total{model="dnc-copy"} (\S+)$', metrics, re.M)[1]) > 50
    assert 'route="/v2/models/{name}/infer",status="200"' in metrics
    assert "Traceback" not in probed.log


def test_unlikely_requests_are_refused_as_documented(probed, tmp_path, examples):
    words = ["--mode", "all", "--max-examples", examples, "--exclude-checks", UNFIT]
    open_document = without_keys(f"{probed.url}/openapi.json", tmp_path)
    assert passed(schemathesis(open_document, tmp_path, *words, "--url", probed.url)) > 500
    assert "Traceback" not in probed.log


def test_undocumented_answer_is_reported(probed, tmp_path):
    document = httpx.get(f"{probed.url}/openapi.json").json()
    document["components"]["schemas"]["ModelAnswer"]["properties"]["parameters"]["type"] = "string"
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    words = ["--include-path", "/models", "--phases", "fuzzing", "--max-examples", "1", "--url", probed.url]
    report = schemathesis(changed, tmp_path, *words)
    assert "exit status 1" in report
    assert "Response violates schema" in report
