"""Options that several commands have."""

import pytest

from engram import main as cli


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("train", "--save-every"),
        ("train", "--threads"),
        ("train", "--jobs"),
        ("evaluate", "--sequences"),
        ("evaluate", "--memory-size"),
        ("isolate", "--sessions"),
        ("isolate", "--steps"),
    ],
)
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_number_below_one_is_a_mistake_that_names_the_option(tmp_path, capsys, command, option, value):
    words = {"train": ["train", "dnc-copy", "--out", str(tmp_path)], "evaluate": ["evaluate", str(tmp_path)]}
    words["isolate"] = ["isolate", "dnc-copy"]
    assert cli.main([*words[command], f"{option}={value}"]) == 2
    assert f"{option}: expected a whole number of at least 1, got '{value}'" in capsys.readouterr().err
