import numpy as np
import pytest
from hypothesis import given, strategies as st

from cm3_texttok import DocumentLayout, Vocabulary

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
    )  # fmt: skip
)
TEXTS = st.lists(st.integers(7, 19), max_size=5)
CODES = st.lists(st.integers(0, 7), min_size=1, max_size=9)
PAIRS = st.lists(st.tuples(TEXTS, CODES), max_size=3)


def image(codes):
    return [20 + code for code in codes]


def test_training_layout_token_by_token():
    ids = LAYOUT.training([([7, 8], [0, 1]), ([9], [2])])
    assert ids.tolist() == [EOS, 7, 8, BREAK, 20, 21, BREAK, 9, BREAK, 22, EOS]
    assert ids.dtype == np.int64


def test_prompts_token_by_token():
    context = [([7], [1])]
    opening = [EOS, 7, BREAK, 21, BREAK]
    assert LAYOUT.image_prompt([8, 9]).tolist() == [EOS, 8, 9, BREAK]
    assert LAYOUT.image_prompt([8, 9], context).tolist() == [*opening, 8, 9, BREAK]
    assert LAYOUT.unconditional_prompt().tolist() == [EOS, MASK, BREAK]
    assert LAYOUT.unconditional_prompt(context).tolist() == [*opening, MASK, BREAK]
    assert LAYOUT.caption_prompt([0, 5]).tolist() == [EOS, MASK, BREAK, 20, 25, INFILL]
    caption = [*opening, MASK, BREAK, 20, 25, INFILL]
    assert LAYOUT.caption_prompt([0, 5], context).tolist() == caption
    masked = [False, True, True, False, True]
    infill = [8, BREAK, 27, MASK, 25, MASK1, INFILL]
    assert LAYOUT.infill_prompt([8], [7, 0, 1, 5, 3], masked).tolist() == [EOS, *infill]
    assert LAYOUT.infill_prompt([8], [7, 0, 1, 5, 3], masked, context).tolist() == opening + infill
    assert LAYOUT.infill_continuations(masked) == [(None, 2), (MASK1, 1)]


@given(pairs=PAIRS, text=TEXTS, codes=CODES)
def test_prompts_are_prefixes_of_training(pairs, text, codes):
    """With nothing cut out, and with the whole caption cut out."""
    document = LAYOUT.training([*pairs, (text, codes)]).tolist()
    prompt = LAYOUT.image_prompt(text, pairs).tolist()
    assert document == [*prompt, *image(codes), EOS]

    caption_at = len(prompt) - 1 - len(text)
    without = [*document[:caption_at], MASK, *document[caption_at + len(text) : -1]]
    assert [*without, INFILL] == LAYOUT.caption_prompt(codes, pairs).tolist()
    unconditional = LAYOUT.unconditional_prompt(pairs).tolist()
    assert without[: len(unconditional)] == unconditional


def brute_force_infill(codes, masked):
    """The convention, code by code: body with masks, and the cut spans behind `<infill>`."""
    masks = [MASK, MASK1, MASK2]
    body, tail, before = [], [], False
    for code, cut in zip(codes, masked, strict=True):
        if cut and not before:
            body.append(masks[len(tail)])
            tail.append([])
        if cut:
            tail[-1].append(20 + code)
        else:
            body.append(20 + code)
        before = cut
    return body, tail


@given(
    pairs=PAIRS, text=TEXTS, flags=st.lists(st.tuples(st.integers(0, 7), st.booleans()), min_size=1)
)
def test_infill_equals_brute_force(pairs, text, flags):
    codes, masked = [code for code, _ in flags], [cut for _, cut in flags]
    runs = sum(cut and not before for before, cut in zip([False, *masked], masked, strict=False))
    if not 1 <= runs <= 3:
        with pytest.raises(ValueError, match=f"masked: wanted 1 to 3 runs .*got {runs}$"):
            LAYOUT.infill_continuations(masked)
        with pytest.raises(ValueError, match=f"masked: wanted 1 to 3 runs .*got {runs}$"):
            LAYOUT.infill_prompt(text, codes, masked, pairs)
        return
    body, tail = brute_force_infill(codes, masked)
    prompt = LAYOUT.infill_prompt(text, codes, masked, pairs).tolist()
    assert prompt == [*LAYOUT.image_prompt(text, pairs).tolist(), *body, INFILL]
    expected = [(mask, len(span)) for mask, span in zip([None, MASK1, MASK2], tail, strict=False)]
    assert LAYOUT.infill_continuations(masked) == expected


def test_masked_codes_are_not_looked_at():
    masked = [False, True]
    expected = LAYOUT.infill_prompt([7], [0, 0], masked).tolist()
    assert LAYOUT.infill_prompt([7], [0, -1], masked).tolist() == expected


def test_everything_masked():
    assert LAYOUT.infill_prompt([7], [0, 1], [True, True]).tolist() == [EOS, 7, BREAK, MASK, INFILL]
    assert LAYOUT.infill_continuations([True, True]) == [(None, 2)]


def test_grids_are_read_row_by_row():
    codes = np.arange(6, dtype=np.uint16).reshape(2, 3)
    flat = codes.reshape(-1)
    assert LAYOUT.training([([7], codes)]).tolist() == LAYOUT.training([([7], flat)]).tolist()
    assert LAYOUT.caption_prompt(codes).tolist() == LAYOUT.caption_prompt(flat).tolist()
    masked = np.array([[0, 0, 1], [1, 0, 0]], bool)  # one run: it goes on in the next row
    assert LAYOUT.infill_continuations(masked) == [(None, 2)]
    prompt = LAYOUT.infill_prompt([7], codes, masked)
    assert prompt.tolist() == [EOS, 7, BREAK, 20, 21, MASK, 24, 25, INFILL]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: LAYOUT.training([]), ValueError, "pairs: wanted at least one"),
        (lambda: LAYOUT.training([([7], [])]), ValueError, r"pairs\[0\]: codes: wanted the codes"),
        (lambda: LAYOUT.training([([7], [8])]), ValueError, r"pairs\[0\]: codes: at position 0 "),
        (
            lambda: LAYOUT.training([([7], [0]), ([7, BREAK], [0])]),
            ValueError,
            r"pairs\[1\]: text_ids: at position 1 wanted a text id that is not structural, got 2",
        ),
        (lambda: LAYOUT.image_prompt([20]), ValueError, "text_ids: at position 0 .*got 20"),
        (lambda: LAYOUT.image_prompt([[7]]), ValueError, r"text_ids: wanted a row .*\(1, 1\)"),
        (lambda: LAYOUT.image_prompt("a"), TypeError, "text_ids: wanted integers"),
        (
            lambda: LAYOUT.image_prompt([7], [([MASK], [0])]),
            ValueError,
            r"context\[0\]: text_ids: at position 0",
        ),
        (lambda: LAYOUT.caption_prompt([]), ValueError, "codes: wanted the codes of an image"),
        (
            lambda: LAYOUT.infill_prompt([7], [0, 0], [True]),
            ValueError,
            "masked: wanted 2 flags, one a code, got 1",
        ),
        (
            lambda: LAYOUT.infill_prompt([7], [0, 9], [True, False]),
            ValueError,
            "codes: at position 1 wanted an image code",
        ),
        (
            lambda: LAYOUT.infill_prompt([7], [0], [1]),
            TypeError,
            "masked: wanted booleans, got an array of int64",
        ),
    ],
)
def test_bad_parts_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_with_the_text_tokenizer(layout, tokenizer, vocabulary):
    caption = "red <break> apple"
    ids = layout.training([(tokenizer.encode(caption), [0, 31, 5, 6])])
    (_, text_ids), (_, codes) = layout.read(ids).segments
    assert tokenizer.decode(text_ids) == caption
    assert codes.tolist() == [0, 31, 5, 6]
    assert (ids == vocabulary.break_id).sum() == 1
