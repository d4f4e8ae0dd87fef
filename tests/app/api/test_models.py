"""The route of a model's sample."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import safetensors.numpy

from models.manifest import SAMPLE_FILE
from tests.app.api.test_openapi import check
from tests.app.checkpoints import make_checkpoint
from tests.app.harness import Server, running_server

SAMPLE = np.random.default_rng(1).normal(size=(20_000, 4)).astype(np.float32)
"""Larger than one piece of a response."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("recorded")
    make_checkpoint(root / "checkpoints" / "plain")
    directory = make_checkpoint(root / "checkpoints" / "recorded")
    safetensors.numpy.save_file({"inputs": SAMPLE}, directory / SAMPLE_FILE)
    with running_server(data=root / "data", checkpoints=root / "checkpoints") as server:
        yield server


def test_sample_is_json_that_gives_the_same_float32(recorded):
    answer = httpx.get(f"{recorded.url}/models/recorded/sample")
    assert answer.headers["content-type"] == "application/json"
    assert (np.array(answer.json()["inputs"], np.float32) == SAMPLE).all()
    assert answer.json().keys() == {"inputs"}


def test_sample_is_a_file_of_safetensors_by_accept(recorded):
    answer = httpx.get(f"{recorded.url}/models/recorded/sample", headers={"Accept": "application/x-safetensors"})
    assert answer.headers["content-type"] == "application/x-safetensors"
    tensors = safetensors.numpy.load(answer.content)
    assert (tensors["inputs"] == SAMPLE).all()


def test_sample_is_what_the_document_says(recorded):
    document = httpx.get(f"{recorded.url}/openapi.json").json()
    described = document["paths"]["/models/{name}/sample"]["get"]["responses"]["200"]
    check(document, described, httpx.get(f"{recorded.url}/models/recorded/sample"))
    assert described["content"]["application/x-safetensors"]["schema"]["format"] == "binary"


def test_sample_is_a_sequence_that_the_model_takes(recorded):
    inputs = httpx.get(f"{recorded.url}/models/recorded/sample").json()["inputs"][:50]
    answer = httpx.post(f"{recorded.url}/infer", json={"model": "recorded", "inputs": inputs})
    assert answer.json()["steps"] == 50


def test_model_without_a_sample_refuses_to_give_one(recorded):
    cards = {card["name"]: card["sample"] for card in httpx.get(f"{recorded.url}/models").json()}
    assert cards == {"plain": False, "recorded": True}
    answer = httpx.get(f"{recorded.url}/models/plain/sample")
    assert (answer.status_code, answer.json()["code"]) == (404, "sample_not_found")


def test_sample_of_no_model_is_refused_with_the_models(recorded):
    problem = httpx.get(f"{recorded.url}/models/nonesuch/sample").json()
    assert (problem["code"], problem["expected"]) == ("model_not_found", "one of plain, recorded")
