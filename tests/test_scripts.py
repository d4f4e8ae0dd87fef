"""What the scripts do before they run Engram."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import build

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path):
    """Return a checkout of the kernels and the scripts, whose .venv has the packages of this Python."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "client").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "client/pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".venv" / "installed-engram-").touch()
    return tmp_path


def install(checkout):
    """Return what scripts/serve prints before it starts the server."""
    script = f'set -eu; root="{checkout}"; . "$root/scripts/environment"; install ""'
    run = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, cwd="/")
    assert run.stdout == ""
    return run.stderr


def libraries(checkout):
    return [(path.name, path.stat().st_mtime_ns) for path in sorted((checkout / "kernels").glob("*.so"))]


def test_kernels_are_built_again_when_a_source_has_changed_and_only_then(checkout, monkeypatch):
    before = libraries(checkout)
    assert (install(checkout), libraries(checkout)) == ("", before)
    header = checkout / "kernels/src/model.h"
    header.write_text(header.read_text().replace("double clip;", "double clip; /* Bounds. */"))
    assert "libengram" in install(checkout)
    after = libraries(checkout)
    assert [new > old for (_, new), (_, old) in zip(after, before, strict=True)] == [True] * len(before)
    assert (install(checkout), libraries(checkout)) == ("", after)
    monkeypatch.setattr(build, "HERE", checkout / "kernels")
    monkeypatch.setattr(build, "SOURCES", checkout / "kernels" / "src")
    assert build.are_current()


def test_script_goes_on_where_kernels_cannot_be_built(checkout):
    python = checkout / ".venv/bin/python"
    python.write_text(python.read_text().replace('"$@"', '-S "$@"'))  # without packages, so without zig and pip
    (checkout / "kernels/src/model.h").write_text("#error")
    assert "zig's C compiler was not found" in install(checkout)
    assert "The kernels are not built: Engram goes on without them." in install(checkout)
