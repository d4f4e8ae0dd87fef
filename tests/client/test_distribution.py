"""The distribution engram-client: it installs and imports with what it declares, and nothing of the server."""

import subprocess
import sys
from importlib import metadata

import pytest
import trove_classifiers
from packaging.requirements import Requirement

from tests.app.harness import ROOT

DECLARED = {"httpx", "msgpack", "numpy", "websockets"}
PYTHONS = {"3.11", "3.12", "3.13", "3.14"}
MOST_BYTES = 100_000


def done(*words):
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True, cwd=ROOT / "client").stdout


def required(distribution):
    """Return the names of what a distribution requires here, without extras."""
    requirements = map(Requirement, distribution.requires or ())
    return {found.name for found in requirements if not found.marker or found.marker.evaluate({"extra": ""})}


def link(name, directory):
    """Put a distribution that is installed here, and all that it requires, into a directory of packages."""
    distribution = metadata.distribution(name)
    for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
        if not (directory / top).exists():
            (directory / top).symlink_to(distribution.locate_file(top))
    for requirement in required(distribution):
        link(requirement, directory)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Return a virtual environment that holds the client, from its wheel, and the distributions that it declares."""
    home = tmp_path_factory.mktemp("fresh")
    done(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", home)
    done(sys.executable, "-m", "venv", "--without-pip", home / "venv")
    pip = [sys.executable, "-m", "pip", "--python", home / "venv/bin/python", "--disable-pip-version-check"]
    done(*pip, "install", "--no-index", "--no-deps", *home.glob("*.whl"))
    [packages] = (home / "venv/lib").glob("python*/site-packages")
    [client] = metadata.distributions(path=[str(packages)])
    for requirement in required(client):
        link(requirement, packages)
    done(*pip, "check")
    return home / "venv"


def test_wheel_declares_four_requirements_and_has_types(fresh):
    [packages] = (fresh / "lib").glob("python*/site-packages")
    client = metadata.Distribution.at(next(packages.glob("engram_client-*.dist-info")))
    assert required(client) == DECLARED
    assert {path.name for path in (ROOT / "client/engram_client").glob("*.py")} < {
        path.name for path in (packages / "engram_client").iterdir()
    }
    assert (packages / "engram_client/py.typed").is_file()


def test_wheel_is_small_and_says_what_it_is(fresh):
    [wheel] = fresh.parent.glob("*.whl")
    [packages] = (fresh / "lib").glob("python*/site-packages")
    described = metadata.Distribution.at(next(packages.glob("engram_client-*.dist-info"))).metadata
    classifiers = described.get_all("Classifier")
    assert wheel.stat().st_size < MOST_BYTES
    assert set(classifiers) <= trove_classifiers.classifiers
    assert {name.rpartition(" ")[2] for name in classifiers if "Python :: 3." in name} == PYTHONS
    assert described.get_payload().strip() == (ROOT / "client/README.md").read_text().strip()


def test_client_imports_where_nothing_of_the_server_is(fresh):
    others = ["app", "engram", "fastapi", "models", "onnxruntime", "pandas", "pydantic", "torch", "uvicorn"]
    find = f"print([name for name in {others} if importlib.util.find_spec(name)])"
    script = f"import importlib.util, engram_client; {find}; engram_client.Client('http://127.0.0.1:1').close()"
    assert done(fresh / "bin/python", "-I", "-c", script) == "[]\n"
