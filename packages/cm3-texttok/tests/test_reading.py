"""Every layout is read back into its parts, and what is read is written back as it was."""

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st

from cm3_texttok import Document, DocumentLayout, Vocabulary

EOS, BREAK, MASK, INFILL, MASK1, MASK2 = 1, 2, 3, 4, 5, 6
LAYOUT = DocumentLayout(
    Vocabulary(
        text_size=20,
        num_codes=8,
        pad_id=0,
        eos_id=EOS,
        break_id=BREAK,
        infill_id=INFILL,
        mask_ids=(MASK, MASK1, MASK2),
    ).with_block("audio", 3, offset=30)
)
TEXTS = st.lists(st.integers(7, 19), max_size=5)
CODES = st.lists(st.integers(0, 7), min_size=1, max_size=9)
PAIRS = st.lists(st.tuples(TEXTS, CODES), max_size=3)
SEGMENTS = st.lists(
    st.one_of(
        st.tuples(st.just("text"), TEXTS),
        st.tuples(st.just("image"), CODES),
        st.tuples(st.just("audio"), st.lists(st.integers(0, 2), min_size=1, max_size=4)),
    ),
    min_size=1,
    max_size=5,
)


def plain(segments):
    return [(kind, np.asarray(values).tolist()) for kind, values in segments]


def of_pairs(pairs):
    return [part for text, codes in pairs for part in (("text", text), ("image", codes))]


def check(ids, segments, spans, closed):
    document = LAYOUT.read(ids)
    assert plain(document.segments) == segments
    assert all(values.dtype == np.int64 for _, values in document.segments)
    assert (None if document.spans is None else plain(document.spans)) == spans
    assert document.closed is closed
    assert LAYOUT.write(document).tolist() == ids.tolist()
    return document


@given(segments=SEGMENTS)
def test_interleaved_documents_and_their_prompts(segments):
    check(LAYOUT.interleaved(segments), segments, None, True)
    check(LAYOUT.interleaved_prompt(segments), [*segments, ("text", [])], None, False)


def test_interleaved_token_by_token():
    segments = [("image", [[0, 1]]), ("text", [7]), ("audio", [2]), ("image", [7]), ("text", [])]
    ids = LAYOUT.interleaved(segments).tolist()
    assert ids == [EOS, 20, 21, BREAK, 7, BREAK, 32, BREAK, 27, BREAK, EOS]
    assert LAYOUT.interleaved_prompt(segments[:2]).tolist() == [EOS, 20, 21, BREAK, 7, BREAK]


@given(pairs=PAIRS, text=TEXTS, codes=CODES)
def test_pairs_context_and_dropped_texts(pairs, text, codes):
    context = of_pairs(pairs)
    both = [*context, ("text", text), ("image", codes)]
    dropped = [*context, ("masked", [-1]), ("image", codes)]
    follows = ("text", [])
    check(LAYOUT.training([*pairs, (text, codes)]), both, None, True)
    check(LAYOUT.image_prompt(text, pairs), [*both[:-1], follows], None, False)
    check(LAYOUT.unconditional_prompt(pairs), [*dropped[:-1], follows], None, False)
    check(LAYOUT.text_dropped(codes, pairs), dropped, None, True)
    check(LAYOUT.caption_prompt(codes, pairs), dropped, [("text", [])], False)


def test_prompts_token_by_token():
    assert LAYOUT.text_dropped([0, 5]).tolist() == [EOS, MASK, BREAK, 20, 25, EOS]
    masked = [True, False, True, True]
    prompt = LAYOUT.text_infill_prompt([7, 8, 9, 10], masked, [5], [([11], [1])])
    assert prompt.tolist() == [EOS, 11, BREAK, 21, BREAK, MASK, 8, MASK1, BREAK, 25, INFILL]
    document = LAYOUT.training([([7, 8], [5, 6])])
    masked = [0, 0, 1, 0, 1, 0, 0]
    cut = LAYOUT.masked(document, np.array(masked, bool)).tolist()
    assert cut == [EOS, 7, MASK, BREAK, MASK1, 26, INFILL, 8, MASK1, 25, EOS]


@given(segments=SEGMENTS, data=st.data())
def test_what_is_cut_out_comes_back(segments, data):
    ids = LAYOUT.interleaved(segments)
    movable = ~np.isin(ids, (EOS, BREAK))
    masked = np.array(data.draw(st.lists(st.booleans(), min_size=ids.size, max_size=ids.size)))
    masked &= movable
    runs = int((np.diff(masked.astype(int)) == 1).sum())
    assume(1 <= runs <= 3)
    document = LAYOUT.read(cut := LAYOUT.masked(ids, masked))
    assert document.num_masks == len(document.spans) == runs
    assert plain(document.restore()) == segments
    assert LAYOUT.write(document).tolist() == cut.tolist()
    assert sorted(cut[~np.isin(cut, (MASK, MASK1, MASK2, INFILL))]) == sorted(ids)


@given(pairs=PAIRS, text=TEXTS, codes=CODES, data=st.data())
def test_infill_prompts_are_prefixes_of_masked_training(pairs, text, codes, data):
    """So a model is asked what it has been taught, for words and for regions of the image."""
    ids = LAYOUT.training([*pairs, (text, codes)])
    for name, size, stop in (("image", len(codes), ids.size - 1), ("text", len(text), None)):
        stop = stop or ids.size - 2 - len(codes)
        masked = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
        whole = np.zeros(ids.size, bool)
        whole[stop - size : stop] = masked
        if not 1 <= (np.diff(whole.astype(int)) == 1).sum() <= 3:
            continue
        if name == "image":
            prompt = LAYOUT.infill_prompt(text, codes, masked, pairs)
        else:
            prompt = LAYOUT.text_infill_prompt(text, masked, codes, pairs)
        example = LAYOUT.masked(ids, whole)
        assert example[: prompt.size].tolist() == prompt.tolist()
        tail = LAYOUT.infill_continuations(masked)
        assert sum(length + (mask is not None) for mask, length in tail) == (
            example.size - prompt.size - 1
        )
        open_document = LAYOUT.read(prompt)
        assert not open_document.closed and open_document.num_masks == len(tail)
        with pytest.raises(ValueError, match=f"spans: wanted {len(tail)}, one a mask, got "):
            Document(segments=open_document.segments, closed=False).restore()


IDS = st.one_of(st.integers(-1, 8), st.integers(18, 34), st.sampled_from([MASK, INFILL, BREAK]))


@given(ids=st.lists(IDS, max_size=12), closed=st.booleans())
def test_what_is_read_is_written_back(ids, closed):
    row = [EOS, *ids, *[EOS] * closed]
    try:
        document = LAYOUT.read(row)
    except ValueError as error:
        assert "ids: at position" in str(error)
        return
    assert LAYOUT.write(document).tolist() == row


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([], r"ids: wanted a row that begins with <eos>, got the shape \(0,\)"),
        ([[EOS, EOS]], r"got the shape \(1, 2\)"),
        ([7], r"position 0 wanted <eos> \(1\), got 7"),
        ([7, BREAK, 20, EOS], r"position 0 wanted <eos> \(1\), got 7"),
        ([EOS, 7, BREAK, 20, 7, EOS], "position 4 wanted an id of image, got 7"),
        ([EOS, 7, BREAK, 20, EOS, 7, BREAK, 20, EOS], "position 4 wanted an id of image, got 1"),
        ([EOS, 7, BREAK, 28, EOS], r"position 3 wanted an id of \['text', .*\], got 28"),
        ([EOS, 7, 20, EOS], "position 2 wanted an id of text, got 20"),
        ([EOS, 20, 30, EOS], "position 2 wanted an id of image, got 30"),
        ([EOS, 7, BREAK, 0], r"position 3 wanted an id of \['text', 'image', 'audio'\], got 0"),
        ([EOS, 7, 28], "position 2 wanted an id of text, got 28"),
        ([EOS, 7, EOS, 7, EOS], "position 2 wanted an id of text, got 1"),
        ([EOS, MASK1, BREAK, 20, EOS], "position 1 wanted the mask token 0, got 5"),
        ([EOS, MASK, BREAK, MASK, EOS], "position 3 wanted the mask token 1, got 3"),
        ([EOS, 7, INFILL, 7, EOS], "position 2 wanted no <infill>, for nothing is cut out, got 4"),
        ([EOS, 7, MASK, INFILL, 20, EOS], "position 4 wanted an id of text, as in its seg.* 20"),
        ([EOS, MASK, INFILL, 7, BREAK, 8, EOS], "position 4 wanted an id of text, got 2"),
        ([EOS, MASK, INFILL, 7, MASK1, 8, EOS], "position 4 wanted <eos>, got 5"),
        ([EOS, MASK, 7, MASK1, INFILL, 7, EOS], "position 6 wanted the mask token 1 and its span"),
        ([EOS, MASK, 7, MASK1, INFILL, 7, MASK, 7], "position 6 wanted the mask token 1, got 3"),
        ([EOS, MASK, INFILL, 7, INFILL, 7], "position 4 wanted an id of text, got 4"),
        ([EOS, MASK, MASK1, INFILL, 7, MASK1, 20, EOS], "position 6 wanted an id of text, as in"),
    ],
)
def test_malformed_ids_say_where(ids, words):
    with pytest.raises(ValueError, match=words):
        LAYOUT.read(ids)


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ([], "segments: wanted at least one"),
        ([("image", [])], r"segments\[0\]: wanted at least one image code"),
        ([("text", [7]), ("text", [BREAK])], r"segments\[1\]: at position 0 wanted a text id"),
        ([("image", [8])], r"segments\[0\]: at position 0 wanted an image code in \[0, 8\), got 8"),
        ([("video", [0])], r"wanted one of \['image', 'audio'\], got 'video'"),
        ([("masked", [3])], r"segments\[0\]: at position 0 wanted masks alone, got 3"),
        ([("text", [7, -4])], r"segments\[0\]: at position 1 wanted at most 3 masks, got -4"),
        ([("text", [-2])], "ids: at position 1 wanted the mask token 0, got 5"),
    ],
)
def test_bad_segments_are_named(segments, words):
    with pytest.raises(ValueError, match=words):
        LAYOUT.interleaved(segments)


@pytest.mark.parametrize(
    ("ids", "masked", "words"),
    [
        ([EOS, 7, 8], [0, 1, 0], "ids: wanted a whole document without masks"),
        ([EOS, 7, MASK, EOS], [0, 1, 0, 0], "ids: wanted a whole document without masks"),
        ([EOS, 7, EOS], [0, 1], "masked: wanted 3 flags, one an id, got 2"),
        ([EOS, 7, EOS], [0, 0, 0], "masked: wanted 1 to 3 runs"),
        ([EOS, 7, EOS], [0, 1, 1], "masked: at position 2 wanted flags at texts and codes alone"),
    ],
)
def test_bad_masks_are_named(ids, masked, words):
    with pytest.raises(ValueError, match=words):
        LAYOUT.masked(ids, np.array(masked, bool))


def test_text_infill_errors():
    with pytest.raises(ValueError, match="masked: wanted 2 flags, one an id, got 1"):
        LAYOUT.text_infill_prompt([7, 8], [True], [0])
    with pytest.raises(ValueError, match="text_ids: at position 0 wanted a text id"):
        LAYOUT.text_infill_prompt([BREAK], [True], [0])
