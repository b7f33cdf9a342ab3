import numpy as np
import pytest
from hypothesis import given, strategies as st

from cm3_texttok import ChameleonLayout

LAYOUT = ChameleonLayout()
TEXT = st.tuples(st.just("text"), st.lists(st.integers(16384, 65535), min_size=1, max_size=4))
IMAGE = st.tuples(st.just("image"), st.lists(st.integers(0, 8191), min_size=1, max_size=4))
TURN = st.just(("end_of_turn", []))


def no_two_texts(segments):
    kinds = [kind for kind, _ in segments]
    return ("text", "text") not in zip(kinds, kinds[1:], strict=False)


SEGMENTS = st.lists(st.one_of(TEXT, IMAGE, TURN), max_size=6).filter(no_two_texts)


def plain(segments):
    return [(kind, np.asarray(values).tolist()) for kind, values in segments]


def test_layout_token_by_token():
    segments = [("text", [20000, 20001]), ("image", [[0, 8191]]), ("end_of_turn", [])]
    prompt = [0, 20000, 20001, 8197, 4, 8195, 8196, 8710]
    assert LAYOUT.prompt(segments).tolist() == prompt
    assert LAYOUT.document(segments).tolist() == [*prompt, 2]
    assert LAYOUT.prompt(segments).dtype == np.int64


@given(segments=SEGMENTS)
def test_read_undoes_both(segments):
    assert plain(LAYOUT.read(LAYOUT.document(segments))) == segments
    assert plain(LAYOUT.read(LAYOUT.prompt(segments))) == segments


MARKS = st.sampled_from([0, 1, 2, 4, 5, 8195, 8196, 8197, 8198, 8710, 16383, 16384, 65536, -1])


@given(ids=st.lists(MARKS, max_size=10))
def test_read_takes_only_what_the_layout_gives(ids):
    try:
        segments = LAYOUT.read([0, *ids])
    except ValueError:
        return
    assert [0, *ids] in (LAYOUT.prompt(segments).tolist(), LAYOUT.document(segments).tolist())


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([], r"position 0 wanted <s> \(0\)"),
        ([20000], r"position 0 wanted <s> \(0\)"),
        ([0, 20000, 5], "position 2 wanted an id of text, got 5"),
        ([0, 8197, 4, 20000, 8196], "position 3 wanted an id of image, got 20000"),
        ([0, 8197, 8196], r"position 2 wanted an image and its end \(8196\), got 8196"),
        ([0, 8197, 4, 5], r"position 4 wanted an image and its end \(8196\), got the end of the"),
        ([0, 8197, 4, 2], r"position 3 wanted an image and its end \(8196\), got 2"),
        ([0, 8196], r"position 1 wanted one of \[8197, 8710\], got 8196"),
        ([0, 8197, 4, 8710], r"position 3 wanted one of \[8196\], got 8710"),
        ([0, 20000, 0], r"position 2 wanted one of \[8197, 8710\], got 0"),
    ],
)
def test_read_says_where(ids, words):
    with pytest.raises(ValueError, match=words):
        LAYOUT.read(ids)


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ([("text", [16383])], r"segments\[0\]: at position 0 wanted a text id .*got 16383"),
        ([("image", [0, 8192])], r"segments\[0\]: at position 1 wanted an image code .*got 8192"),
        ([("text", [])], r"segments\[0\]: wanted at least one text id"),
        ([("audio", [1])], r"segments\[0\]: wanted text, image or end_of_turn, got 'audio'"),
        ([("text", [20000]), ("text", [20000])], r"segments\[1\]: wanted another segment"),
    ],
)
def test_bad_segments_are_named(segments, words):
    with pytest.raises(ValueError, match=words):
        LAYOUT.document(segments)
