"""Captions that are too long for a sequence."""

import json

import numpy as np
import pytest
from PIL import Image

from cm3_texttok import TextTokenizer
from cm3leon.data.captions import without_long_captions, write_long_captions
from cm3leon.data.pairs import DataError, read_pairs
from cm3leon.data.pixels import Pictures, open_pictures, write_pictures


@pytest.fixture
def pictures(tmp_path) -> Pictures:
    texts = [f"picture {i}" for i in range(8)] + ["word " * 400]
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(texts)]
    rows.append({"file_name": "3.png", "text": "another caption of the third picture"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    for i in range(9):
        Image.new("RGB", (9, 7), (i, 0, 0)).save(tmp_path / f"{i}.png")
    pairs = read_pairs(tmp_path)
    write_pictures(tmp_path, pairs, 8, tmp_path, lambda *_: None)
    return open_pictures(tmp_path, pairs, tmp_path)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(["picture 12", "word"] * 9, vocab_size=292)


def lengths(tokenizer, captions) -> np.ndarray:
    return np.array([len(tokenizer.encode(caption)) for caption in captions])


@pytest.mark.parametrize("views", [1, 4])
def test_long_captions_are_left_out_with_file_and_both_lengths(
    pictures, tokenizer, tmp_path, views
):
    pairs, suffix = pictures.pairs, " #3" if views == 4 else ""
    count = lengths(tokenizer, [caption + suffix for caption in pairs.captions])
    most = int(np.sort(count)[-3])  # two are longer
    write_long_captions(pictures, tokenizer, most, views, tmp_path)
    left, messages = without_long_captions(pictures, tmp_path)
    wanted = [
        f"{pairs.files[row]}: wanted a caption of at most {most} ids, got {count[row]}"
        for row in np.flatnonzero(count > most)
    ]
    assert messages == wanted and len(wanted) == 2 and any("8.png" in line for line in wanted)
    assert len(left.pairs) == 8 and "8.png" not in left.pairs.files and "3.png" in left.pairs.files
    assert (lengths(tokenizer, [c + suffix for c in left.pairs.captions]) <= most).all()
    for row, file in enumerate(left.pairs.files):
        assert (left.pixels(np.array([row]))[..., 0] == int(file[0])).all()


def test_nothing_is_left_out_where_all_fit(pictures, tokenizer, tmp_path):
    write_long_captions(pictures, tokenizer, 10**6, 1, tmp_path)
    left, messages = without_long_captions(pictures, tmp_path)
    assert messages == [] and left.pairs.files == pictures.pairs.files


def test_a_split_without_a_caption_is_refused(pictures, tokenizer, tmp_path):
    write_long_captions(pictures, tokenizer, 0, 1, tmp_path)
    with pytest.raises(DataError, match=r"left in train, the first: .*at most 0 ids, got \d+"):
        without_long_captions(pictures, tmp_path)
