import numpy as np
import pytest
import torch

from cm3_decoding import CodeBlock, Forced, Interleaved, TextUntil
from cm3_decoding.segments import segments_per_row

CODES = CodeBlock(start=20, stop=24, length=3)
TEXT = TextUntil(start=2, stop=10, stop_ids=(1, 5), max_new_tokens=4, forbidden=(3, 5))


def test_one_segment_one_list_or_a_list_per_row():
    assert segments_per_row(CODES, 2) == [(CODES,), (CODES,)]
    assert segments_per_row([CODES, TEXT], 2) == [(CODES, TEXT), (CODES, TEXT)]
    assert segments_per_row([[CODES], [TEXT, CODES]], 2) == [(CODES,), (TEXT, CODES)]
    with pytest.raises(ValueError, match="constraint: wanted segments for 3 rows, got 2"):
        segments_per_row([[CODES], [TEXT]], 3)


@pytest.mark.parametrize("bad", [None, 3, [CODES, None], [[CODES], [3]], ["ab", "cd"]])
def test_what_is_no_segment_is_named(bad):
    with pytest.raises(ValueError, match="^constraint: wanted segments, got"):
        segments_per_row(bad, 2)


@pytest.mark.parametrize("kind", [list, tuple, set, np.array, torch.tensor, iter])
def test_ids_may_come_in_any_sequence(kind):
    text = TextUntil(
        start=np.int64(2), stop=torch.tensor(10), max_new_tokens=np.uint8(4),
        stop_ids=kind([1, 5]), forbidden=kind([3, 5]), stop_sequences=[kind([4, 6]), [7]],
    )  # fmt: skip
    assert {*text.stop_ids} == {1, 5} and {*text.forbidden} == {3, 5}
    assert text.stop_sequences == ((4, 6), (7,))
    assert all(type(token) is int for token in (*text.stop_ids, *text.forbidden, text.stop))
    assert hash(text) is not None
    assert Forced(ids=kind([4, 6])) == Forced(ids=(4, 6))


@pytest.mark.parametrize("one", [2, np.int64(2), torch.tensor(2)])
def test_one_id_may_stand_alone(one):
    text = TextUntil(start=2, stop=10, stop_ids=one, max_new_tokens=4, forbidden=one)
    assert (text.stop_ids, text.forbidden, Forced(ids=one).ids) == ((2,), (2,), (2,))
    story = Interleaved(text=TEXT, picture=CODES, open_id=one, close_ids=one, max_pictures=one)
    assert (story.open_id, story.close_ids, story.max_pictures) == (2, (2,), 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stop_ids", 2.0),
        ("stop_ids", ["2"]),
        ("stop_ids", None),
        ("stop_ids", "2"),
        ("stop_ids", [-1]),
        ("stop_ids", torch.tensor([2.0])),
        ("forbidden", [[2]]),
        ("stop_sequences", (4, 5)),
        ("stop_sequences", 4),
        ("stop_sequences", [[4.0]]),
        ("stop_sequences", [[]]),
        ("stop_sequences", ["ab"]),
        ("start", 2.0),
        ("stop", None),
        ("max_new_tokens", "4"),
    ],
)
def test_what_is_no_id_is_named(field, value):
    given = {"start": 2, "stop": 10, "stop_ids": (1,), "max_new_tokens": 4}
    name = "(start, )?stop" if field == "stop" else field
    with pytest.raises(ValueError, match=f"^{name}: wanted"):
        TextUntil(**(given | {field: value}))


@pytest.mark.parametrize("bad", [CODES, TEXT, None, 3])
def test_the_parts_of_an_interleaved_text_are_of_their_kind(bad):
    for field, good in (("text", TEXT), ("picture", CODES)):
        given = {"text": TEXT, "picture": CODES, "open_id": 11, "max_pictures": 1, field: bad}
        if bad is not good:
            with pytest.raises(ValueError, match=f"^{field}: wanted a {type(good).__name__}, got"):
                Interleaved(**given)


def test_other_segments_name_their_fields_too():
    for field, value in (("start", 1.0), ("stop", "9"), ("length", 3.0)):
        with pytest.raises(ValueError, match=f"^{field}: wanted a whole number, got"):
            CodeBlock(**({"start": 1, "stop": 9, "length": 3} | {field: value}))
    for ids in ([], [1.0], "12", None):
        with pytest.raises(ValueError, match="^ids: wanted"):
            Forced(ids=ids)
