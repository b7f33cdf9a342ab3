"""A drawing never takes the place of a file of the user's."""

import numpy as np
import pytest

from cm3leon.generate import save


@pytest.mark.parametrize(
    ("prompt", "name"), [("Red apple!", "red-apple"), ("?", "picture"), ("x" * 99, "x" * 40)]
)
def test_a_drawing_takes_a_name_that_no_file_has(tmp_path, monkeypatch, capsys, prompt, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.png").write_text("mine")
    (tmp_path / f"{name}-2.png").symlink_to("elsewhere")
    for number in (3, 4):
        save(None, prompt, [np.zeros((8, 8, 3), np.uint8)], ["a"])
        assert f"wrote {name}-{number}.png" in capsys.readouterr().out
        assert (tmp_path / f"{name}-{number}.png").stat().st_size > 100
    assert (tmp_path / f"{name}.png").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
