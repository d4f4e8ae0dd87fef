"""Cards of models: typed members, and a mapping of all that the server gives."""

import asyncio
import dataclasses

import pytest

from app.api.schemas import ModelAnswer
from engram_client import AsyncClient, Card, EngramClientError
from engram_client.cards import MEMBERS
from tests.client.scripted import Script, ok

LEAST = {"name": "m", "kind": "lstm", "task": {}, "input_size": 3, "output_size": 2}


def test_card_has_the_members_of_the_interface():
    assert list(MEMBERS) == list(ModelAnswer.model_fields)


def test_card_of_another_version_keeps_what_is_unknown():
    document = LEAST | {"mood": "good"}
    [card] = asyncio.run(AsyncClient("http://nowhere", wire=Script(ok([document]))).models())
    assert (card["mood"], card.more, card["kind"], card.get("none")) == ("good", {"mood": "good"}, "lstm", None)
    assert (card, card.memory_size, card.backend) == (Card.of(document), None, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.name = "other"


def test_card_without_sizes_is_no_answer_of_engram():
    with pytest.raises(EngramClientError, match="input_size"):
        asyncio.run(AsyncClient("http://nowhere", wire=Script(ok({"name": "m", "kind": "lstm"}))).model("m"))
