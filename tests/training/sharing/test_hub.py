"""Checkpoints in a hub, by the real huggingface_hub against a hub on loopback."""

import pytest

from models.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, WEIGHTS_FILE, ManifestError
from tests.training import tiny
from tests.training.sharing.fake_hub import TOKEN, running_hub
from training.files import TRAINING_FILE, CheckpointError
from training.sharing.hub import Repository, repository
from training.sharing.places import pull, push

PLACE = "hf://somebody/tiny"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("made") / "tiny"
    tiny.checkpoint(directory, "ntm")
    return directory


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    with running_hub() as hub:
        yield hub


def test_what_was_pushed_to_a_hub_is_pulled_again(hub, checkpoint, tmp_path):
    assert f"{hub.url}/somebody/tiny/commit/" in push(checkpoint, PLACE, hub.url)
    files = hub.repositories["somebody/tiny"]
    assert {MANIFEST_FILE, WEIGHTS_FILE} <= files.keys()
    assert TRAINING_FILE not in files
    pulled = pull(PLACE, tmp_path / "models", hub_url=hub.url)
    assert pulled == tmp_path / "models" / "tiny"
    assert {path.name: path.read_bytes() for path in pulled.iterdir()} == files
    assert [path.name for path in pulled.parent.iterdir()] == ["tiny"]


def test_second_push_deletes_the_files_of_the_first(hub, checkpoint, tmp_path):
    hub.repositories["somebody/tiny"] = {"old.png": b"", ".gitattributes": b"", "NOTES.md": b"of the owner"}
    push(checkpoint, PLACE, hub.url)
    assert "old.png" not in hub.repositories["somebody/tiny"]
    assert {".gitattributes", "NOTES.md"} <= hub.repositories["somebody/tiny"].keys()
    pull(f"{PLACE}@main", tmp_path, "other", hub_url=hub.url)
    assert not (tmp_path / "other" / "NOTES.md").exists()


def test_repository_with_too_large_a_part_is_not_downloaded(hub, checkpoint, tmp_path):
    push(checkpoint, PLACE, hub.url)
    hub.repositories["somebody/tiny"][MANIFEST_FILE] = bytes(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(CheckpointError, match=r"hf://somebody/tiny of .*: manifest.json has 1,048,577 bytes"):
        pull(PLACE, tmp_path / "models", hub_url=hub.url)


def test_damaged_weights_of_a_hub_are_not_kept(hub, checkpoint, tmp_path):
    push(checkpoint, PLACE, hub.url)
    hub.repositories["somebody/tiny"][WEIGHTS_FILE] += b"x"
    with pytest.raises(ManifestError, match=r"its SHA-256 is .* the file is damaged"):
        pull(PLACE, tmp_path / "models", hub_url=hub.url)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("hf://somebody/nothing", "hf://somebody/nothing of http.*: no such repository, or it is private.*HF_TOKEN"),
        (
            "hf://somebody/empty",
            "hf://somebody/empty of .*: no checkpoint of Engram: there is no manifest.json among its 1 files",
        ),
        ("hf://somebody/empty@later", "it has no revision 'later'"),
        ("hf://tiny", "hf://tiny: expected hf://OWNER/NAME"),
    ],
)
def test_place_in_a_hub_without_a_checkpoint_is_named(hub, tmp_path, place, message):
    hub.repositories["somebody/empty"] = {"README.md": b""}
    with pytest.raises(CheckpointError, match=message):
        pull(place, tmp_path, hub_url=hub.url)


def test_push_without_a_right_names_the_token(hub, checkpoint, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(CheckpointError, match=r"hf://somebody/tiny of .*401.*set HF_TOKEN"):
        push(checkpoint, PLACE, hub.url)
    assert hub.repositories == {}


def test_hub_that_is_not_there_is_named(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"hf://somebody/tiny of http://127.0.0.1:9: .*refused"):
        pull(PLACE, tmp_path, hub_url="http://127.0.0.1:9")


def test_repository_names_owner_name_and_revision():
    assert repository("hf://a.b/c-d@refs/pr/1") == Repository("a.b", "c-d", "refs/pr/1")
