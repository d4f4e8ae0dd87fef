"""The client itself: models, whole sequences, sessions to open; its two forms, and its page in the docs."""

import asyncio
import inspect
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from engram_client import (
    AsyncClient,
    AsyncSession,
    AsyncStream,
    Client,
    EngramClientError,
    InvalidRequest,
    NotFound,
    Session,
    SessionGone,
    Stream,
)
from engram_client.errors import Lost
from engram_client.wires import Answer
from tests.app.harness import ROOT
from tests.client.cutting import Cut, proxy_before
from tests.client.inputs import MODEL, WIDTH, sequence
from tests.client.kinds import subclasses
from tests.client.scripted import OPENED, Script, ok


def test_infer_gives_arrays_of_float32(api):
    outputs, trace, steps = api.infer(MODEL, sequence(7), ["usage", "read_weights"], memory_size=16)
    assert (outputs.shape, outputs.dtype, steps) == ((7, 8), np.float32, 7)
    assert {name: values.shape for name, values in trace.items()} == {"usage": (7, 16), "read_weights": (7, 1, 16)}


def test_infer_many_takes_sequences_of_any_lengths(api):
    several = [sequence(length, length) for length in (5, 1, 3)]
    results = api.infer_many(MODEL, several, trace="usage")
    assert [(len(result.outputs), result.trace["usage"].shape[0], result.steps) for result in results] == [
        (length, length, length) for length in (5, 1, 3)
    ]
    assert np.allclose(results[2].outputs, api.infer(MODEL, several[2]).outputs, atol=1e-6)
    assert api.infer_many(MODEL, []) == []


def test_models_have_cards(api):
    assert MODEL in [card.name for card in api.models()]
    assert api.model(MODEL).input_size == WIDTH
    with pytest.raises(NotFound, match="model_not_found"):
        api.model("no such?model")


def test_card_is_the_document_of_the_server(api):
    document = json.loads(api._client._wire._http.get(f"/models/{MODEL}").content)
    card = api.model(MODEL)
    assert dict(card) == document
    assert (card.more, card.memory_size, card.trace["usage"]) == ({}, document["memory_size"], [card.memory_size])


def test_sample_is_the_array_in_the_file_of_safetensors():
    sample = sequence(5)
    script = Script(Answer(200, {}, safetensors.numpy.save({"inputs": sample})))
    given = asyncio.run(AsyncClient("http://nowhere", wire=script).sample("a b"))
    assert (given == sample).all()
    [asked] = script.requests
    assert (asked.path, asked.headers["Accept"]) == ("/models/a%20b/sample", "application/x-safetensors")


def test_sample_has_the_seed_and_sizes_that_are_asked_for(api):
    short, again, other = (api.sample(MODEL, seed, length=4) for seed in (1, 1, 2))
    assert short.shape == (10, WIDTH)
    assert (short == again).all()
    assert (short != other).any()
    with pytest.raises(InvalidRequest, match="length"):
        api.sample(MODEL, length=0)


def test_episode_has_targets_where_its_mask_is_set(api):
    inputs, targets, mask = api.episode(MODEL, seed=1, length=4)
    assert (inputs == api.sample(MODEL, 1, length=4)).all()
    assert (targets[mask] == inputs[1:5, : WIDTH - 2]).all()
    assert mask.tolist() == [False] * 6 + [True] * 4


def test_episode_of_a_recording_has_no_targets():
    script = Script(Answer(200, {}, safetensors.numpy.save({"inputs": sequence(5)})))
    episode = asyncio.run(AsyncClient("http://nowhere", wire=script).episode("a"))
    assert (episode.targets, episode.mask) == (None, None)


def test_sessions_are_listed_until_they_are_deleted(api):
    session = api.open("lstm-copy")
    assert repr(session) == f"<Session {session.id} of lstm-copy at step 0>"
    assert session.id in [other.id for other in api.sessions("lstm-copy")]
    session.delete()
    assert session.id not in [other.id for other in api.sessions()]
    with pytest.raises(SessionGone) as gone:
        session.run(sequence(1))
    assert (gone.value.status, gone.value.problem["reason"]) == (410, "deleted")


def test_tokens_may_come_as_a_plain_list(api):
    assert api.infer("gru-dyck", [1, 0, 2]).outputs.shape[0] == 3
    with pytest.raises(ValueError, match=r"expected \[T, input_size\], or \[T\] of tokens, got shape \[1, 2, 10\]"):
        api.infer(MODEL, [sequence(2)])


def test_client_needs_nothing_else_of_the_project():
    command = [sys.executable, "-c", "import sys, engram_client; print(*sys.modules)"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    rooms = {"app", "benchmarks", "engram", "kernels", "models", "training"}
    assert rooms.union({"fastapi", "torch", "pydantic", "orjson", "safetensors"}).isdisjoint(loaded)


def public(kind: type) -> dict[str, list[str]]:
    """Return the public methods and properties of a class, with the names of their parameters."""
    found = {name: getattr(kind, name) for name in vars(kind) if not name.startswith("_")}
    return {name: list(inspect.signature(item).parameters) if callable(item) else [] for name, item in found.items()}


@pytest.mark.parametrize(("kind", "other"), [(Client, AsyncClient), (Session, AsyncSession), (Stream, AsyncStream)])
def test_client_without_asyncio_is_the_same(kind, other):
    methods = {name: parameters for name, parameters in public(kind).items() if parameters}
    assert methods == public(other)
    assert all(getattr(kind, name).__doc__ == getattr(other, name).__doc__ for name in methods)


def test_client_page_has_every_method_and_error():
    text = (ROOT / "docs" / "client.md").read_text()
    for kind in (Client, Session, Stream):
        names = [f"{name}({', '.join(given[1:])})" if given else name for name, given in public(kind).items()]
        missing = [name for name in names if f"`{name}`" not in text and name != "close()"]
        assert missing == []
    errors = set(re.findall(r"^\| `(\w+)` \| ", text.split("## Errors")[1], re.M))
    assert errors == {error.__name__ for error in subclasses(EngramClientError)} - {"EngramClientError"}
    drawn = re.findall(r"(?:\|--|`--) (\w+)", str(EngramClientError.__doc__))
    assert sorted(drawn) == sorted(errors)


def test_readme_of_the_distribution_runs(server, tmp_path, monkeypatch):
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "client/README.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.replace("http://127.0.0.1:8000", server.url), names)
    assert (names["outputs"].shape, names["done"].errors) == ((len(names["past"]), 8), {})


def test_snapshot_goes_on_where_the_session_was(api):
    session = api.open(MODEL)
    session.run(sequence(6))
    restored = api.restore(session.snapshot())
    earlier = api.restore(session.snapshot(step=2), model=MODEL)
    assert (restored.step, earlier.step) == (6, 2)
    assert np.allclose(restored.run(sequence(3)).outputs, session.run(sequence(3)).outputs, atol=1e-6)
    with pytest.raises(InvalidRequest, match="invalid_snapshot"):
        api.restore(session.snapshot()[:-4])


def test_opening_again_is_the_same_opening():
    script = Script(Lost("reset"), ok(OPENED, 201), ok(OPENED, 201))
    client = AsyncClient("http://nowhere", wire=script)
    asyncio.run(client.open("m"))
    asyncio.run(client.open("m"))
    first, again, second = (request.headers["Idempotency-Key"] for request in script.requests)
    assert first == again != second


def test_session_is_opened_once_though_its_answer_is_lost(server):
    with proxy_before(server, [Cut("server", 1), Cut("server", 1)]) as proxy, Client(proxy.url) as client:
        before = {session.id for session in client.sessions("ntm-copy", limit=1000)}
        session = client.open("ntm-copy")
        after = {session.id for session in client.sessions("ntm-copy", limit=1000)}
    assert after - before == {session.id}


@pytest.mark.parametrize(("url", "timeout"), [("127.0.0.1:8000", 1), ("ws://127.0.0.1:8000", 1), ("http://x", 0)])
def test_client_that_cannot_be_is_refused(url, timeout):
    with pytest.raises(ValueError, match="url: expected http://HOST:PORT" if timeout else "timeout: expected seconds"):
        Client(url, timeout)
