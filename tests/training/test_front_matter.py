"""The front matter of a card, as the Hugging Face Hub reads it."""

import dataclasses
import math

import pytest
import yaml

from models.manifest import read_manifest
from tests.training import tiny
from tests.training.test_card import row
from training.front_matter import front_matter, license_of


@pytest.fixture
def manifest(tmp_path):
    tiny.checkpoint(tmp_path, "ntm")
    return read_manifest(tmp_path)


def read(text):
    assert text.startswith("---\n")
    assert text.endswith("\n---\n")
    return yaml.safe_load(text.removeprefix("---\n").removesuffix("---\n"))


def test_front_matter_has_the_tags_and_the_measured_errors(manifest):
    measured = dataclasses.replace(manifest, evaluation=[row(2, 8, 0.5, 80), row(30, 64, math.inf, 2000)])
    values = read(front_matter("tiny-copy", measured, "apache-2.0"))
    assert values["license"] == "apache-2.0"
    assert values["library_name"] == "engram"
    assert values["tags"] == ["engram", "memory-augmented-neural-network", "neural-turing-machine", "copy"]
    [model] = values["model-index"]
    assert model["name"] == "tiny-copy"
    [result] = model["results"]
    assert result["dataset"] == {"type": "engram/copy", "name": "length 2, 8 memory locations"}
    assert result["metrics"] == [{"type": "wrong bits", "value": 0.5, "name": "wrong bits per sequence"}]


def test_front_matter_without_license_and_measurements_leaves_them_out(manifest):
    assert set(read(front_matter("tiny-copy", manifest))) == {"library_name", "tags"}


@pytest.mark.parametrize("text", ["", "# card\n", "---\n: [\n---\n", "---\n- license\n---\n", "---\nlicense: 1\n---\n"])
def test_license_of_a_card_without_one_is_none(tmp_path, text):
    card = tmp_path / "README.md"
    assert license_of(card) is None
    card.write_text(text)
    assert license_of(card) is None


def test_license_is_that_of_the_card(manifest, tmp_path):
    card = tmp_path / "README.md"
    card.write_text(front_matter("tiny-copy", manifest, "mit") + "\n# card\n")
    assert license_of(card) == "mit"
