import pytest
import torch

from cm3_decoding import CodeBlock, Constraint, Forced, TextUntil
from cm3_decoding.constraints import max_new_tokens, segments_per_row

CODES = CodeBlock(start=20, stop=24, length=3)
TEXT = TextUntil(start=2, stop=10, stop_ids=(1, 5), max_new_tokens=4, forbidden=(3, 5))


def walk(segments, ids):
    """One row fed with `ids`: the sets allowed on the way, and whether it is done after each."""
    state = Constraint([segments], 30)
    seen = []
    for token in ids:
        seen.append(set(state.allowed()[0].nonzero()[:, 0].tolist()))
        state.advance(torch.tensor([token]))
    return seen, bool(state.finished()[0])


def test_a_code_block_lasts_exactly_its_length():
    assert walk([CODES], [20, 23]) == ([{20, 21, 22, 23}] * 2, False)
    assert walk([CODES], [20, 23, 20]) == ([{20, 21, 22, 23}] * 3, True)


def test_text_ends_at_a_stop_id_or_at_its_limit():
    allowed = {1, 2, 4, 5, 6, 7, 8, 9}  # stop id 5 comes through though it is forbidden
    assert walk([TEXT], [2, 1]) == ([allowed] * 2, True)
    assert walk([TEXT], [2, 4, 6]) == ([allowed] * 3, False)
    assert walk([TEXT], [2, 4, 6, 7]) == ([allowed] * 4, True)


def test_forced_ids_come_one_by_one():
    assert walk([Forced(ids=(7, 0, 7))], [7, 0, 7]) == ([{7}, {0}, {7}], True)


def test_segments_follow_each_other():
    segments = [CODES, Forced(ids=(0,)), TEXT, CODES]
    codes = {20, 21, 22, 23}
    text = {1, 2, 4, 5, 6, 7, 8, 9}
    seen, done = walk(segments, [20, 20, 20, 0, 8, 5, 21, 21, 21])
    assert seen == [codes] * 3 + [{0}] + [text] * 2 + [codes] * 3
    assert done
    assert max_new_tokens(segments) == 3 + 1 + 4 + 3


def test_rows_move_on_their_own_and_stay_done():
    state = Constraint([[CODES], [TEXT, CODES], []], 30)
    assert state.finished().tolist() == [False, False, True]
    for ids in ([20, 1, 0], [20, 20, 0], [20, 20, 0]):
        state.advance(torch.tensor(ids))
    assert state.finished().tolist() == [True, False, True]
    state.advance(torch.tensor([0, 20, 0]))
    assert state.finished().tolist() == [True, True, True]
    assert state.allowed().sum(1).tolist() == [1, 1, 1]


def test_one_segment_one_list_or_a_list_per_row():
    assert segments_per_row(CODES, 2) == [(CODES,), (CODES,)]
    assert segments_per_row([CODES, TEXT], 2) == [(CODES, TEXT), (CODES, TEXT)]
    assert segments_per_row([[CODES], [TEXT, CODES]], 2) == [(CODES,), (TEXT, CODES)]
    with pytest.raises(ValueError, match="constraint: wanted segments for 3 rows, got 2"):
        segments_per_row([[CODES], [TEXT]], 3)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: CodeBlock(start=3, stop=3, length=1), "start, stop"),
        (lambda: CodeBlock(start=-1, stop=3, length=1), "start, stop"),
        (lambda: CodeBlock(start=0, stop=3, length=0), "length"),
        (lambda: TextUntil(start=0, stop=3, stop_ids=(), max_new_tokens=0), "max_new_tokens"),
        (lambda: TextUntil(start=0, stop=3, stop_ids=(-1,), max_new_tokens=1), "stop_ids"),
        (lambda: Forced(ids=()), "ids"),
        (lambda: Constraint([[CodeBlock(start=0, stop=31, length=1)]], 30), "constraint"),
        (
            lambda: Constraint(
                [[TextUntil(start=4, stop=5, stop_ids=(), max_new_tokens=1, forbidden=(4,))]], 30
            ),
            "constraint",
        ),
    ],
)
def test_what_cannot_be_met_is_refused(make, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        make()
