"""The manifest of a checkpoint, and the weights it describes."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.manifest import (
    FORMAT,
    MANIFEST_FILE,
    NEXT_WEIGHTS_FILE,
    WEIGHTS_FILE,
    Manifest,
    ManifestError,
    read_manifest,
    sha256,
    weights_file,
)

ROOT = Path(__file__).parents[2]
WEIGHTS = b"the weights"
OTHER_WEIGHTS = b"other weights"


def a_manifest():
    return Manifest(
        kind="dnc",
        config={"memory_size": 4, "controller": {"kind": "lstm"}, "output_activation": "sigmoid"},
        task={"name": "copy"},
        input_size=3,
        output_size=2,
        parameters=100,
        state={"memory": [4, 3]},
        trace={"usage": [4]},
        weights_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        training={"seed": 1},
        evaluation=[{"length": 20, "errors": 0.5}],
    )


def a_checkpoint(directory, **files):
    """Write the manifest and the files named, WEIGHTS_FILE or NEXT_WEIGHTS_FILE, and return the directory."""
    (directory / MANIFEST_FILE).write_text(a_manifest().to_json())
    for name, data in files.items():
        (directory / {"weights": WEIGHTS_FILE, "next_weights": NEXT_WEIGHTS_FILE}[name]).write_bytes(data)
    return directory


def test_manifest_written_and_read_is_itself(tmp_path):
    assert read_manifest(a_checkpoint(tmp_path)) == a_manifest()
    assert a_manifest().to_json().endswith("}\n")


def test_manifest_needs_no_torch():
    code = (
        "import sys, models.manifest; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'safetensors')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_manifest_absent_names_the_file_and_the_remedy(tmp_path):
    with pytest.raises(ManifestError) as error:
        read_manifest(tmp_path / "nowhere")
    path = tmp_path / "nowhere" / MANIFEST_FILE
    assert str(error.value) == f"{path}: No such file or directory; a checkpoint is a directory with a {MANIFEST_FILE}"


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"kind": "dnc",}', b"\xff\xfe\x00", a_manifest().to_json().encode()[:-20]]
)
def test_manifest_that_is_not_json_names_the_file(tmp_path, data):
    (tmp_path / MANIFEST_FILE).write_bytes(data)
    with pytest.raises(ManifestError, match=f"{tmp_path / MANIFEST_FILE}: not JSON: "):
        read_manifest(tmp_path)


@pytest.mark.parametrize(("text", "found"), [("[]", "list"), ("3", "int"), ("null", "NoneType")])
def test_manifest_of_another_type_names_the_type(text, found):
    with pytest.raises(ManifestError, match=f"^here: expected an object, got {found}$"):
        Manifest.from_json(text, "here")


@pytest.mark.parametrize("other", [FORMAT + 1, str(FORMAT), None])
def test_manifest_of_another_format_names_both(other):
    with pytest.raises(ManifestError, match=f"^here: format {other!r}, but this version reads format {FORMAT}$"):
        Manifest.from_json(json.dumps(dataclasses.asdict(a_manifest()) | {"format": other}), "here")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Manifest) if field.name != "format"])
def test_manifest_without_a_key_names_it_and_its_type(name):
    values = dataclasses.asdict(a_manifest())
    expected = type(values.pop(name)).__name__
    with pytest.raises(ManifestError, match=f"^here: {name} must be of type {expected}, got None$"):
        Manifest.from_json(json.dumps(values), "here")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Manifest) if field.name != "format"])
def test_manifest_value_of_another_type_is_named(name):
    values = dataclasses.asdict(a_manifest())
    expected = type(values[name]).__name__
    with pytest.raises(ManifestError, match=f"^here: {name} must be of type {expected}, got 1.5$"):
        Manifest.from_json(json.dumps(values | {name: 1.5}), "here")


def test_manifest_with_an_unknown_key_names_it():
    values = dataclasses.asdict(a_manifest()) | {"colour": "red"}
    with pytest.raises(ManifestError, match=r"^here: unknown key 'colour'; known keys are kind, config, "):
        Manifest.from_json(json.dumps(values), "here")


@pytest.mark.parametrize("controller", [{}, {"controller": None}])
def test_manifest_of_a_model_without_a_controller_is_read(controller):
    values = dataclasses.asdict(a_manifest()) | {"config": {"output_activation": "sigmoid"} | controller}
    assert Manifest.from_json(json.dumps(values), "here").config.get("controller") is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input_size", 0, "input_size must be a positive size, got 0"),
        ("output_size", -2, "output_size must be a positive size, got -2"),
        ("parameters", 2**53, f"parameters must be a positive size, got {2**53}"),
        ("input_size", True, "input_size must be of type int, got True"),
        ("state", {"memory": "4x3"}, r"state\.memory must be a list of sizes, got '4x3'"),
        ("trace", {"usage": [0]}, r"trace\.usage must be a list of sizes, got \[0\]"),
        ("trace", {"usage": [4.0]}, r"trace\.usage must be a list of sizes, got \[4\.0\]"),
        ("config", {"controller": {}, "output_activation": "relu"}, "output_activation must be one of .*, got 'relu'"),
        ("config", {"controller": "lstm", "output_activation": "sigmoid"}, "controller must be an object, got 'lstm'"),
        ("evaluation", [3], "evaluation must be a list of objects"),
    ],
)
def test_manifest_value_that_cannot_be_is_named(name, value, message):
    values = dataclasses.asdict(a_manifest()) | {name: value}
    with pytest.raises(ManifestError, match=f"^here: (config\\.)?{message}$"):
        Manifest.from_json(json.dumps(values), "here")


def test_weights_that_the_manifest_describes_are_found(tmp_path):
    assert weights_file(a_checkpoint(tmp_path, weights=WEIGHTS), a_manifest()) == tmp_path / WEIGHTS_FILE


@pytest.mark.parametrize("files", [{"weights": OTHER_WEIGHTS}, {}], ids=["over old weights", "first save"])
def test_weights_of_a_save_before_its_last_move_are_found(tmp_path, files):
    a_checkpoint(tmp_path, **files, next_weights=WEIGHTS)
    assert weights_file(tmp_path, a_manifest()) == tmp_path / NEXT_WEIGHTS_FILE


@pytest.mark.parametrize("cut_off", [OTHER_WEIGHTS, b"the we"])
def test_weights_of_a_save_before_its_manifest_are_current(tmp_path, cut_off):
    a_checkpoint(tmp_path, weights=WEIGHTS, next_weights=cut_off)
    assert weights_file(tmp_path, a_manifest()) == tmp_path / WEIGHTS_FILE


@pytest.mark.parametrize("files", [{}, {"next_weights": OTHER_WEIGHTS}])
def test_weights_absent_names_the_file(tmp_path, files):
    with pytest.raises(ManifestError) as error:
        weights_file(a_checkpoint(tmp_path, **files), a_manifest())
    assert str(error.value) == f"{tmp_path / WEIGHTS_FILE}: no such file, but {MANIFEST_FILE} describes it"


def test_weights_of_another_manifest_are_refused_with_both_hashes(tmp_path):
    a_checkpoint(tmp_path, weights=OTHER_WEIGHTS, next_weights=b"more")
    with pytest.raises(ManifestError) as error:
        weights_file(tmp_path, a_manifest())
    assert str(error.value).startswith(
        f"{tmp_path / WEIGHTS_FILE}: its SHA-256 is {hashlib.sha256(OTHER_WEIGHTS).hexdigest()}, "
        f"but {MANIFEST_FILE} says {a_manifest().weights_sha256}"
    )


def test_sha256_of_nothing_is_the_known_one(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_weights_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    (tmp_path / WEIGHTS_FILE).write_bytes(b"weights")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("models.manifest.sha256", refuse)
    with pytest.raises(ManifestError, match=r"model\.safetensors: Permission denied"):
        weights_file(tmp_path, a_manifest())
