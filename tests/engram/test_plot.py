"""engram plot."""

from tests.engram.running import complaint


def test_directory_with_nothing_to_draw_is_an_error(tmp_path, capsys):
    assert "nothing to draw" in complaint(capsys, "plot", tmp_path)
