"""engram models: the checkpoints of a directory."""

import json

from engram import main as cli
from models.manifest import MANIFEST_FILE
from tests.engram.running import done
from tests.training import tiny


def test_models_are_listed_for_people_and_for_programs(tmp_path, capsys):
    for name in ("one", "two"):
        tiny.checkpoint(tmp_path / name)
    assert [line.split()[:3] for line in done(capsys, "models", tmp_path).splitlines()[1:]] == [
        ["one", "rnn", "4"],
        ["two", "rnn", "4"],
    ]
    assert [model["name"] for model in json.loads(done(capsys, "models", tmp_path, "--json"))] == ["one", "two"]
    (tmp_path / "one" / MANIFEST_FILE).write_text("{")
    assert cli.main(["models", str(tmp_path)]) == 1
    assert "\none is damaged: " in capsys.readouterr().out
