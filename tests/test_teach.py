"""Kept lessons are an ordinary folder of captioned pictures, whose other lines stay."""

import json

import numpy as np
import pytest
from PIL import Image

from cm3leon.drawing import teach


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def recalled(tmp_path, monkeypatch):
    """Recalls the names and sides of what was kept, in order."""
    monkeypatch.setattr(
        teach, "learn", lambda parts, picture, text: [*parts, (text, picture.size[0])]
    )
    return lambda: teach.recall([], tmp_path)


NAMES = ["zorp", "blue\u2028zorp", 'a "zorp"\\', "zorp\nzorp", "\u7ea2 \U0001f98a"]


def test_what_was_kept_is_recalled_in_order_and_twice_is_once(tmp_path, picture, recalled):
    assert recalled() == []
    for name in [*NAMES, *NAMES]:
        assert teach.keep(tmp_path, picture, name, 32).is_file()
    assert recalled() == [(name, 32) for name in NAMES]


def test_lines_and_columns_of_the_users_own_stay(tmp_path, picture, recalled):
    place = tmp_path / "taught"
    (place / "more").mkdir(parents=True)
    picture.save(place / "more" / "a.png")
    own = '{"file_name":  "more/a.png", "text": ["one", "two"], "credit": NaN}'
    for written in (own, f"\ufeff{own}\n\n"):
        (place / "metadata.jsonl").write_text(written, "utf-8")
        teach.keep(tmp_path, picture, "zorp", 32)
        first, second = (place / "metadata.jsonl").read_text("utf-8").splitlines()
        assert first == own and json.loads(second)["text"] == "zorp"
        assert recalled() == [("one", 50), ("two", 50), ("zorp", 32)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "wanted the field 'file_name'"),
        ("[" * 100_000, "wanted JSON, got brackets in too many brackets"),
        ("zorp", "wanted JSON"),
        ('{"file_name": "a.png"}', "wanted 'text'"),
        ('{"file_name": "a.png", "text": " "}', "wanted 'text'"),
        ('{"file_name": "a.png", "text": 3}', "'text': wanted a string, got int"),
        ('{"file_name": "../a.png", "text": "a"}', "wanted a path inside the folder"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, picture, recalled, line, message):
    teach.keep(tmp_path, picture, "zorp", 32)
    with open(tmp_path / "taught" / "metadata.jsonl", "a") as file:
        file.write(line)
    with pytest.raises(ValueError, match=f"metadata.jsonl:2: .*{message}"):
        recalled()
