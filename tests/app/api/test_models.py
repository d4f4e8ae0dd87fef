"""The route of a model's sample."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import safetensors.numpy

from models.manifest import SAMPLE_FILE
from tests.app.api.test_openapi import check
from tests.app.checkpoints import make_checkpoint
from tests.app.harness import CHECKPOINTS, Server, running_server

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
    assert answer.json()["drawn_from"] == "recording"
    assert [answer.json()[name] for name in ("targets", "fits", "settings")] == [None, None, []]


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


def test_card_says_which_model_has_a_recording(recorded):
    cards = {card["name"]: card["sample"] for card in httpx.get(f"{recorded.url}/models").json()}
    assert cards == {"plain": False, "recorded": True}


def test_recording_has_no_sizes_to_ask_for(recorded):
    problem = httpx.get(f"{recorded.url}/models/recorded/sample?length=3").json()
    assert (problem["code"], problem["place"], problem["got"]) == ("invalid_request", "length", "3")
    assert problem["expected"] == "no size: a recording is as it is"


def test_sample_of_a_task_has_its_answer_and_sizes(recorded):
    url = f"{recorded.url}/models/plain/sample?seed=5&length=3"
    sample = httpx.get(url).json()
    assert (sample["seed"], sample["drawn_from"], len(sample["inputs"])) == (5, "task", 8)
    assert sample["targets"] == [None] * 5 + sample["pattern"]
    assert [setting["value"] for setting in sample["settings"]] == [3]
    assert httpx.get(url).json() == sample != httpx.get(url.replace("seed=5", "seed=6")).json()


def test_sample_in_safetensors_has_targets_and_their_mask(recorded):
    url = f"{recorded.url}/models/plain/sample?length=3"
    tensors = safetensors.numpy.load(httpx.get(url, headers={"Accept": "application/x-safetensors"}).content)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "inputs": (8, 4),
        "targets": (8, 2),
        "mask": (8,),
    }
    assert tensors["mask"].tolist() == [0] * 5 + [1] * 3


@pytest.mark.parametrize(
    ("asked", "place", "expected"),
    [
        ("length=0", "length", "a whole number from 1 to 499"),
        ("repeats=2", "repeats", "one of length"),
        ("seed=-1", "seed", "greater than or equal to 0"),
        (f"seed={2**53}", "seed", "less than or equal to 9007199254740991"),
    ],
)
def test_option_that_no_sample_has_is_refused_by_name(recorded, asked, place, expected):
    answer = httpx.get(f"{recorded.url}/models/plain/sample?{asked}")
    problem = answer.json()
    assert (answer.status_code, problem["place"], problem["expected"]) == (422, place, expected)


def test_sample_of_no_model_is_refused_with_the_models(recorded):
    problem = httpx.get(f"{recorded.url}/models/nonesuch/sample").json()
    assert (problem["code"], problem["expected"]) == ("model_not_found", "one of plain, recorded")


@pytest.mark.parametrize("name", sorted(path.parent.name for path in CHECKPOINTS.glob("*/manifest.json")))
def test_sample_of_a_shipped_model_is_of_its_task(client, name):
    sample = client.get(f"/models/{name}/sample?seed=3").json()
    assert sample["drawn_from"] == "task"
    answer = client.post("/infer", json={"model": name, "inputs": sample["inputs"]}).json()
    assert answer["steps"] == len(sample["inputs"]) == len(sample["targets"])
    due = [target for target in sample["targets"] if target is not None]
    assert {len(target) for target in due} == {client.get(f"/models/{name}").json()["output_size"]}
    assert [sample["phases"][0]["from"], sample["phases"][-1]["to"]] == [0, answer["steps"]]


def test_sample_of_the_underground_is_within_a_response(client):
    sample = client.get("/models/dnc-graph-traversal/sample?map=london&moves=5").json()
    assert len(sample["graph"]["edges"]) == sample["fits"]["needed"] == 812
    names = [sample["graph"]["nodes"][node]["name"] for node in sample["routes"][-1]["nodes"]]
    assert sample["labels"][-1].endswith(names[-1])
    assert [setting["name"] for setting in sample["settings"]] == ["map", "moves", "queries", "planning"]
