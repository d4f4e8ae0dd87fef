"""The files of deploy/: alerts and the dashboard, checked by Prometheus itself against the metrics of a real server."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.errors import EngramError
from tests.app.harness import CHECKPOINTS, ROOT, Server, running_server

RULES = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "engram.json"
SERIES = re.compile(r"\b((?:engram|process)_[a-z_]+)\b(?![\"=])")
SECONDS = 30

pytestmark = pytest.mark.slow


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    assert found, f"these tests run Prometheus: put `{name}` on the PATH; scripts/test brings it where there is apt-get"
    return found


def promtool(*arguments: str) -> str:
    run = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, cwd=RULES)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def alerts() -> dict[str, str]:
    """Return the text of each alert by its name."""
    parts = re.split(r"^ +- alert: (\w+)$", (RULES / "alerts.yml").read_text(), flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def expressions() -> dict[str, list[str]]:
    """Return the expressions of each panel by its title, with the variables of the dashboard replaced."""
    replaced = {"$job": "engram", "$instance": ".+", "$__rate_interval": "1m"}
    found: dict[str, list[str]] = {}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            text = target["expr"]
            for name, value in replaced.items():
                text = text.replace(name, value)
            found.setdefault(panel["title"], []).append(text)
    return found


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has answered, refused and written."""
    few = tmp_path_factory.mktemp("few")
    (few / "dnc-copy").symlink_to(CHECKPOINTS / "dnc-copy")
    with running_server(data=tmp_path_factory.mktemp("used") / "data", checkpoints=few) as server:
        use(server)
        yield server


def use(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        session = client.post("/sessions", json={"model": "dnc-copy"}).json()["id"]
        for _ in range(3):
            client.post(f"/sessions/{session}/steps", json={"inputs": [[0.5] * 10]})
        client.get("/none")
        client.delete(f"/sessions/{session}")


def exposed(server: Server) -> set[str]:
    text = httpx.get(f"{server.url}/metrics").text
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


@pytest.fixture(scope="module")
def prometheus(used: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A real Prometheus that scrapes the server every second, with our rules."""
    directory = tmp_path_factory.mktemp("prometheus")
    (directory / "key").write_text("none")
    config = (RULES / "prometheus.yml").read_text()
    for before, after in (
        ("127.0.0.1:8000", used.url.removeprefix("http://")),
        ("/run/secrets/engram_metrics_key", str(directory / "key")),
        ("15s", "1s"),
        ("alerts.yml", str(RULES / "alerts.yml")),
    ):
        assert before in config
        config = config.replace(before, after)
    (directory / "prometheus.yml").write_text(config)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = [f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
    with (directory / "log").open("w") as log:
        command = [program("prometheus"), *options, f"--web.listen-address={address}"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1/") as client:
            wait_for_scrapes(client, used)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def wait_for_scrapes(client: httpx.Client, server: Server) -> None:
    """Use the server until Prometheus has scraped it several times."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            use(server)
            if query(client, "count_over_time(up[1m])") and float(query(client, "count_over_time(up[1m])")[0]) >= 4:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise AssertionError("Prometheus did not scrape the server")


def query(client: httpx.Client, expression: str) -> list[str]:
    """Return the values of an expression now."""
    response = client.get("query", params={"query": expression})
    response.raise_for_status()  # 503 while Prometheus starts
    answer = response.json()
    assert answer["status"] == "success", answer
    return [one["value"][1] for one in answer["data"]["result"]]


def test_promtool_accepts_the_rules_and_the_configuration():
    assert f"{len(alerts())} rules found" in promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "--syntax-only", "prometheus.yml")


def test_promtool_finds_each_alert_in_its_situation_only():
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")
    tested = (RULES / "alerts_test.yml").read_text()
    for name in alerts():
        assert re.search(rf"alertname: {name}\n +exp_alerts:\n +- exp_labels", tested), f"{name} is not seen to fire"
        assert re.search(rf"alertname: {name}, exp_alerts: \[\]", tested), f"{name} is not seen to be quiet"


def test_alerts_name_metrics_and_codes_that_exist(used):
    known = {error.code for error in subclasses(EngramError)}
    for name, text in alerts().items():
        named = set(SERIES.findall(text))
        assert named <= exposed(used), name
        codes = {code for chosen in re.findall(r'code=~"([^"]+)"', text) for code in chosen.split("|")}
        assert codes <= known, name


def subclasses(cls: type[EngramError]) -> list[type[EngramError]]:
    return [found for child in cls.__subclasses__() for found in [child, *subclasses(child)]]


def test_dashboard_names_metrics_that_exist(used):
    exists = exposed(used)
    for title, texts in expressions().items():
        for text in texts:
            assert SERIES.findall(text), title
            assert set(SERIES.findall(text)) <= exists, title


def test_dashboard_has_every_metric_of_the_server(used):
    shown = {name for texts in expressions().values() for text in texts for name in SERIES.findall(text)}
    families = {re.sub("_(bucket|sum|count|created|total)$", "", name) for name in exposed(used)}
    unseen = {"process_virtual_memory_bytes"}
    assert families - {re.sub("_(bucket|sum|count|total)$", "", name) for name in shown} == unseen


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (place["x"] + x, place["y"] + y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["w"])
        for y in range(place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_prometheus_scrapes_the_server(prometheus):
    assert query(prometheus, 'up{job="engram"}') == ["1"]
    assert float(query(prometheus, "engram_steps_total")[0]) >= 3


def test_prometheus_answers_every_panel_of_the_dashboard(prometheus):
    quiet = {"Failed steps", "Failures of the store"}
    for title, texts in expressions().items():
        for text in texts:
            assert query(prometheus, text) or title in quiet, f"{title}: {text}"


def test_prometheus_loads_the_alerts_and_fires_none(prometheus):
    groups = prometheus.get("rules").json()["data"]["groups"]
    rules = {rule["name"]: (rule["state"], rule["health"]) for group in groups for rule in group["rules"]}
    assert rules.keys() == alerts().keys()
    assert {name: state for name, (state, _) in rules.items() if state != "inactive"} == {}
    assert {health for _, health in rules.values()} <= {"ok", "unknown"}


def test_every_alert_has_its_heading_in_the_documentation():
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.M)
    assert [name for name in headings if name.startswith("Engram")] == list(alerts())
    for name, text in alerts().items():
        assert f"docs/operations.md#{name.lower()}\n" in text
