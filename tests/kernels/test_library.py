"""Libraries of kernels that were built from other sources than those that are here: each is refused, with why."""

import ctypes
import re
import shutil
import subprocess
import sys

import pytest

from kernels import build, library
from kernels.layout import DECLARATIONS, NUMBERS, STRUCTURES, differences, facts
from kernels.library import Library, NotFitting
from kernels.step import covered
from kernels.support import NoKernel
from models.registry import config_values
from tests.kernels.test_builds import VARIANT
from tests.models.catalogue import CATALOGUE

pytestmark = pytest.mark.slow

HERE, SOURCES = build.HERE, build.SOURCES

QUICK = ("-O0", "-fno-sanitize=undefined")
"""A library compiles in a fifth of the time so: without -O, zig would add checks for undefined behaviour."""

ALTERATIONS = {
    "two fields swapped": ("model.h", "i64 kind, layers,", "i64 layers, kind,", "model.kind is integer at 8,"),
    "a number of another kind": (
        "model.h",
        "double clip;",
        "i64 clip;",
        "model.clip is integer at",
    ),
    "a field more": (
        "cells.h",
        "real *d_peepholes;",
        "real *more, *d_peepholes;",
        "layer.d_peepholes is pointer at",
    ),
    "a field more at the end": (
        "cells.h",
        "    real *h, *c;",
        "    real *h, *c, *more;",
        "cell_states is structure of 24",
    ),
    "two weights swapped": (
        "linear.h",
        "*weights, *bias, *tr",
        "*bias, *weights, *tr",
        "linear.bias is pointer at 16,",
    ),
    "cells renumbered": ("cells.h", "BASIC_RNN, GRU,", "GRU, BASIC_RNN,", "GRU is number 0 in C, number 1 in Python"),
    "activations renumbered": ("cells.h", "{ TANH, SIGMOID,", "{ SIGMOID, TANH,", "TANH is number 1 in C"),
    "models renumbered": ("model.h", "{ RNN, DNC, NTM }", "{ RNN, NTM, DNC }", "DNC is number 2 in C"),
    "strengths renumbered": ("model.h", "{ ONEPLUS, SOFTPLUS }", "{ SOFTPLUS, ONEPLUS }", "ONEPLUS is number 1 in C"),
    "styles renumbered": ("model.h", "{ PAPER, PYTORCH_NTM,", "{ PYTORCH_NTM, PAPER,", "PAPER is number 1 in C"),
    "functions renumbered": ("engram.c", "FUNCTION_LOG,", "FUNCTION_LOG = 9,", "FUNCTION_LOG is number 9 in C"),
    "wider panels": (
        "linear.h",
        "#define PANEL 16",
        "#define PANEL 32",
        "PANEL is number 32 in C, number 16 in Python",
    ),
}
"""File, text, and its replacement; then the start of the difference that is reported."""


def compiled(path, *alterations):
    """Compile a copy of the sources, in which texts are others, to `path` and return it."""
    sources = shutil.copytree(SOURCES, path.with_suffix(".sources"))
    for file, text, instead in alterations:
        before = (sources / file).read_text()
        assert text in before
        (sources / file).write_text(before.replace(text, instead, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "SOURCES", sources)
        return build.build(path, VARIANT, *QUICK)


@pytest.fixture(scope="module")
def stale(tmp_path_factory):
    """Return a library that was built before a field came into the model."""
    return compiled(
        tmp_path_factory.mktemp("kernels") / "stale.so", ("model.h", "double clip;", "double before, clip;")
    )


@pytest.fixture(scope="module")
def altered(tmp_path_factory):
    """Return a library with all alterations at once."""
    alterations = [alteration[:3] for alteration in ALTERATIONS.values()]
    return compiled(tmp_path_factory.mktemp("kernels") / "altered.so", *alterations)


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_library_reports_every_structure_and_number_that_differs(alteration, altered):
    differing = differences(ctypes.CDLL(str(altered)))
    assert any(each.startswith(ALTERATIONS[alteration][3]) for each in differing), differing


def test_library_older_than_its_sources_is_refused_with_remedy(stale):
    refused = r"stale.so is not used: it was built from other sources .*; python -m kernels.build builds it again"
    with pytest.raises(NotFitting, match=refused):
        Library(stale)


def test_library_with_other_structure_is_refused_without_sources(stale, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    with pytest.raises(
        NotFitting, match=r"stale.so is not used: model is structure of \d+ bytes in C, .*; install Engram again"
    ):
        Library(stale)


def test_library_of_sources_that_compute_otherwise_is_refused(tmp_path):
    path = compiled(tmp_path / "other.so", ("functions.h", "ALL(1) / (ALL(1) + ", "ALL(2) / (ALL(2) + "))
    assert differences(ctypes.CDLL(str(path))) == []
    with pytest.raises(NotFitting, match=r"it was built from other sources than those beside it"):
        Library(path)


def test_library_of_other_options_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(build, "OPTIONS", [*build.OPTIONS, "-O1"])
        path = build.build(tmp_path / "other.so", VARIANT, *QUICK)
    with pytest.raises(NotFitting, match="it was built from other sources"):
        Library(path)


def test_library_that_reports_nothing_is_refused(tmp_path):
    source, path = tmp_path / "old.c", tmp_path / "old.so"
    source.write_text("int engram_runs_here(void) { return 1; } int engram_number(void) { return 4; }")
    subprocess.run([*build._compiler(), "-shared", "-o", str(path), str(source)], check=True)
    with pytest.raises(NotFitting, match=r"built before libraries reported .*; python -m kernels.build builds it"):
        Library(path)


@pytest.mark.parametrize("left", [20, 64, 5000, -1])
def test_library_that_is_cut_off_is_refused(tmp_path, left):
    """As a copy onto a full disk leaves it: to load it would end the process."""
    built = library.library()
    assert built is not None
    (tmp_path / "cut.so").write_bytes(built.path.read_bytes()[:left])
    with pytest.raises((NotFitting, OSError), match=r"cut off; python -m kernels.build|file too short"):
        Library(tmp_path / "cut.so")


def test_function_that_takes_something_else_does_not_compile(tmp_path):
    change = ("engram.c", "engram_gather(const int32_t *places", "engram_gather(const i64 *places")
    with pytest.raises(build.BuildFailed, match="conflicting types for 'engram_gather'"):
        compiled(tmp_path / "library.so", change)


def test_build_says_what_python_has_otherwise_and_leaves_no_library(tmp_path):
    copy = shutil.copytree(HERE, tmp_path / "kernels", ignore=shutil.ignore_patterns("*.so"))
    structures = (copy / "layout.py").read_text()
    (copy / "layout.py").write_text(structures.replace('"h c"', '"c h"'))
    command = [sys.executable, "-m", "kernels.build"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    assert "the C headers and layout.py disagree: cell_states.c is pointer at 8, of 8 bytes in C" in run.stderr
    assert list(copy.glob("*.so")) == []


def test_all_functions_structures_and_numbers_of_sources_are_compared():
    sources = "".join(path.read_text() for path in SOURCES.glob("*.[ch]"))
    defined = set(re.findall(r"^\w+ (engram_\w+)\(", sources, re.M))
    assert defined - {name.partition("(")[0].split()[-1] for name in DECLARATIONS} == {"engram_facts"}
    enumerators = ",".join(re.findall(r"^enum \w+ \{(.*?)\};", sources, re.M | re.S))
    inside = {"COSINE", "TIGHT_COSINE", "JOINT_COSINE"}  # which Python never names
    assert {name.strip() for name in enumerators.split(",")} - NUMBERS.keys() == inside
    assert facts().keys() >= {
        *STRUCTURES,
        *NUMBERS,
        *DECLARATIONS,
        "segment.workspace_stride",
        "step_call.outputs",
        "layer.second",
        "model.style",
    }


def test_fastest_fitting_library_computes_and_refused_one_is_logged(stale, monkeypatch, caplog):
    fitting = build.library_paths()[-1]
    monkeypatch.setattr(library, "library_paths", lambda: [stale, fitting])
    monkeypatch.setattr(library, "_fastest", library._fastest.__wrapped__)
    assert library.library().path == fitting
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{fitting.name} computes instead: stale.so is not used: it was built from other sour" in caplog.text


def test_model_is_refused_with_remedy_where_no_library_fits(stale, monkeypatch, caplog):
    monkeypatch.setattr(library, "library_paths", lambda: [stale])
    monkeypatch.setattr(library, "_fastest", library._fastest.__wrapped__)
    with pytest.raises(NoKernel, match=r"there is no library of fused kernels: stale.so is not .* kernels.build b"):
        covered("rnn", config_values(CATALOGUE["rnn"]), None)
    assert "WARNING" in {record.levelname for record in caplog.records}


def test_libraries_are_current_until_a_source_changes(tmp_path, monkeypatch):
    assert build.are_current()
    copy = shutil.copytree(HERE, tmp_path / "kernels")
    monkeypatch.setattr(build, "HERE", copy)
    monkeypatch.setattr(build, "SOURCES", copy / "src")
    assert build.are_current()
    (copy / "src/dnc.h").write_text((SOURCES / "dnc.h").read_text() + "/* More. */\n")
    assert not build.are_current()
    (copy / "src/dnc.h").write_text((SOURCES / "dnc.h").read_text())
    assert build.are_current()
    build.library_paths()[0].unlink()
    assert not build.are_current()
