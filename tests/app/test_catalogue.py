"""The cards of models."""

from typing import Any

import numpy as np

from app.backends.fake import FakeBackend
from app.catalogue import InputFormat, LoadedModel, MemorySizes
from models.manifest import Manifest

GRAPH = {
    "form": "batched",
    "inputs": [{"name": "input", "shape": [2], "range": [-1, 1]}],
    "outputs": [{"name": "speech", "shape": [1], "range": [0, 1]}],
    "trace": [],
    "step": {"sampling_rate": 16000, "hop": 2},
    "about": {"license": "MIT"},
}


def loaded(kind: str, config: dict[str, Any], **values: Any) -> LoadedModel:
    manifest = Manifest(kind, {"output_activation": "identity", **config}, {"name": "none"}, 2, 1, 10, {}, {}, "")
    spec = FakeBackend(capacity=1).spec
    return LoadedModel(
        name="model",
        manifest=manifest,
        inputs=InputFormat(2),
        output_groups=1,
        spec=spec,
        memory=MemorySizes("model", spec, 1, 0),
        backend="onnx",
        device="cpu",
        **values,
    )


def test_card_of_a_graph_describes_its_step_and_no_controller():
    card = loaded("onnx", {"graph": GRAPH}).describe()
    assert (card["kind"], card["graph"], card["controller"]) == ("onnx", GRAPH, None)
    assert card["sample"] is False


def test_card_of_another_kind_has_no_graph():
    card = loaded("rnn", {"controller": {"kind": "lstm"}}).describe()
    assert (card["graph"], card["controller"]) == (None, {"kind": "lstm"})


def test_card_says_how_memory_is_addressed():
    members = ["deallocation", "look_up_scaling", "order", "style"]
    dnc = loaded("dnc", {"deallocation": True, "look_up_scaling": True}).describe()
    ntm = loaded("ntm", {"order": "in-turn", "style": "paper"}).describe()
    assert [[card[member] for member in members] for card in (dnc, ntm)] == [
        [True, True, None, None],
        [None, None, "in-turn", "paper"],
    ]


def test_recording_is_on_the_card():
    assert loaded("onnx", {"graph": GRAPH}, sample=np.ones((3, 2), np.float32)).describe()["sample"] is True
