"""The files for several servers: Compose and Kubernetes, beside HAProxy's configuration and the settings."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.metrics import Metrics
from app.settings import ENVIRONMENT_PREFIX, Settings

ROOT = Path(__file__).parents[1]
KUBERNETES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
HAPROXY = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text()
HARDENED = ("read_only", "cap_drop", "security_opt", "pids_limit", "logging", "restart")


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def replicas() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose()["services"].items() if re.fullmatch(r"engram-\d", name)}


def resources() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the resources for Kubernetes by kind and name."""
    found = [resource for path in KUBERNETES for resource in yaml.safe_load_all(path.read_text())]
    return {(resource["kind"], resource["metadata"]["name"]): resource for resource in found}


def pod(kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = resources()[kind, name]["spec"]["template"]["spec"]
    return found


def settings(variables: dict[str, Any]) -> Settings:
    names = {name.removeprefix(ENVIRONMENT_PREFIX).lower(): value for name, value in variables.items()}
    return Settings(**{name: value for name, value in names.items() if value != "${HOSTS:-}"})


def test_compose_starts_one_server_unless_a_profile_says_otherwise():
    services = compose()["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["engram"]
    assert {name for name, service in services.items() if service.get("profiles") == ["replicas"]} == {
        *replicas(),
        "haproxy",
        "postgres",
    }


def test_compose_names_the_servers_as_haproxy_does():
    listed = re.findall(r"^    server (engram-\d) (\S+):8000 id", HAPROXY, re.M)
    assert [(name, name) for name in replicas()] == [pair for pair in listed if "$" not in pair[1]]
    assert compose()["services"]["haproxy"]["depends_on"] == list(replicas())
    assert [service["environment"]["ENGRAM_SERVER_NAME"] for service in replicas().values()] == list(replicas())


def test_replicas_are_hardened_as_the_single_server_is():
    services = compose()["services"]
    for name in (*replicas(), "haproxy", "postgres"):
        for what in HARDENED:
            assert services[name][what] == services["engram"][what], (name, what)
        assert services[name]["mem_limit"] == services[name]["memswap_limit"]
    assert all("user" in service for service in services.values())
    published = {name for name, service in services.items() if service.get("ports")}
    assert published == {"engram", "engram-gpu", "haproxy"}


def test_settings_of_replicas_are_valid_and_leave_time_to_stop():
    of_pods = resources()["ConfigMap", "engram-settings"]["data"]
    grace = pod("StatefulSet", "engram")["terminationGracePeriodSeconds"]
    of_services = [(one["environment"], int(one["stop_grace_period"].removesuffix("s"))) for one in replicas().values()]
    for variables, seconds in [(of_pods, grace), *of_services]:
        found = settings(variables)
        assert found.store.startswith("postgresql://engram@")
        assert found.drain_seconds + 2 * found.shutdown_timeout + 2 < seconds
        assert found.max_connections_per_address >= found.max_connections


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_kubernetes_accepts_the_files(path):
    for resource in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_pods_have_the_names_that_haproxy_knows():
    servers, scaler = resources()["StatefulSet", "engram"]["spec"], resources()["HorizontalPodAutoscaler", "engram"]
    names = [f"{servers['serviceName'].split('-')[0]}-{n}" for n in range(1, scaler["spec"]["maxReplicas"] + 1)]
    assert servers["ordinals"]["start"] == 1
    assert re.findall(r'^    server (\S+) "\1\.\$\{SERVERS\}:8000" id', HAPROXY, re.M) == names
    variables = {one["name"]: one.get("value") for one in pod("Deployment", "engram-haproxy")["containers"][0]["env"]}
    assert variables["SERVERS"] == f"{servers['serviceName']}.$(NAMESPACE).svc.cluster.local"
    assert resources()["Service", servers["serviceName"]]["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize(("kind", "name"), [("StatefulSet", "engram"), ("Deployment", "engram-haproxy")])
def test_pods_are_hardened_and_stop_one_at_a_time(kind, name):
    spec, budget = pod(kind, name), resources()["PodDisruptionBudget", name]["spec"]
    [container] = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not spec["enableServiceLinks"]
    assert {"readinessProbe", "livenessProbe"} <= container.keys()
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == resources()[kind, name]["spec"]["selector"]


def test_autoscaler_counts_a_metric_that_exists():
    [metric] = resources()["HorizontalPodAutoscaler", "engram"]["spec"]["metrics"]
    [rule] = yaml.safe_load((ROOT / "deploy" / "prometheus" / "adapter.yml").read_text())["rules"]["custom"]
    name = metric["pods"]["metric"]["name"]
    assert rule["name"]["as"] == name == rule["seriesQuery"].partition("{")[0]
    assert name in {family.name for family in Metrics().registry.collect()}
