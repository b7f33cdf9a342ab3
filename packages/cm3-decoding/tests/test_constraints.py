import dataclasses

import pytest
import torch

from cm3_decoding import CodeBlock, Constraint, Forced, Interleaved, TextUntil
from cm3_decoding.constraints import max_new_tokens

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


def test_a_stop_sequence_ends_text_across_steps_but_not_across_segments():
    text = TextUntil(
        start=2, stop=10, stop_ids=(), max_new_tokens=6, stop_sequences=((4, 5), (7, 7, 7))
    )
    assert walk([text], [2, 5, 4]) == ([set(range(2, 10))] * 3, False)
    assert walk([text], [2, 5, 4, 5])[1]
    assert walk([text], [7, 7, 2, 7, 7])[1] is False
    assert walk([text], [2, 7, 7, 7])[1]
    # The 4 that ended the first text is no beginning of a run in the second.
    first = TextUntil(start=2, stop=10, stop_ids=(4,), max_new_tokens=6)
    assert walk([first, text], [3, 4, 5])[1] is False
    with pytest.raises(ValueError, match="^stop_sequences: wanted"):
        TextUntil(start=2, stop=10, stop_ids=(), max_new_tokens=6, stop_sequences=((),))


INTERLEAVED = Interleaved(
    text=TextUntil(start=2, stop=10, stop_ids=(1,), max_new_tokens=3),
    picture=CODES,
    open_id=0,
    close_ids=(11,),
    max_pictures=2,
)


def test_interleaved_text_opens_pictures_and_goes_on():
    words, codes = set(range(2, 10)), {20, 21, 22, 23}
    open_text, last_text = words | {0, 1}, words | {1}
    one_picture = [codes] * 3 + [{11}]
    ids = [4, 0, 20, 21, 22, 11, 0, 20, 20, 20, 11, 5, 1]
    seen, done = walk([INTERLEAVED], ids)
    assert seen == [open_text] * 2 + one_picture + [open_text] + one_picture + [last_text] * 2
    assert done
    assert max_new_tokens([INTERLEAVED]) == 3 * 3 + 2 * 4


@pytest.mark.parametrize("ids", [[1], [4, 4, 4], [0, 20, 20, 20, 11, 1]])
def test_interleaved_text_ends_the_segment_wherever_it_ends(ids):
    seen, done = walk([INTERLEAVED, Forced(ids=(15,))], [*ids, 15])
    assert seen[-1] == {15}
    assert done


def test_a_picture_may_open_at_the_texts_last_id():
    seen, _ = walk([INTERLEAVED], [4, 4, 0, 20])
    assert seen[-1] == {20, 21, 22, 23}


LIMITED = dataclasses.replace(INTERLEAVED, max_new_tokens=9)  # a picture is 5 ids


def test_a_total_limit_keeps_room_for_the_pictures_that_are_opened():
    words, codes, closing = set(range(2, 10)), {20, 21, 22, 23}, {11}
    opening, last = words | {0, 1}, words | {1}
    picture = [codes] * 3 + [closing]
    # A picture after 3 ids of text leaves one id of text.
    assert walk([LIMITED], [4, 4, 0, 20, 20, 20, 11, 5, 5]) == (
        [opening] * 3 + picture + [last] * 2, True
    )  # fmt: skip
    # After one picture a second one does not fit.
    assert walk([LIMITED], [0, 20, 20, 20, 11, 5, 1])[0][5:] == [last, last]
    text = dataclasses.replace(INTERLEAVED.text, max_new_tokens=99)
    long = dataclasses.replace(LIMITED, text=text)
    seen, done = walk([long], [4] * 9)
    assert seen == [opening] * 4 + [last] * 5
    assert done
    assert not walk([long], [4] * 8)[1]


def test_a_total_limit_is_counted_for_each_segment_and_row():
    rows = [[LIMITED, Forced(ids=(15,)), LIMITED], [LIMITED], [CODES, LIMITED]]
    state = Constraint(rows, 30)
    first = [4, 1, 15, 0, 20, 20, 20, 11, 5, 1]
    second = [4, 4, 4, 2, 2, 2, 2, 2, 2, 2]
    third = [20, 20, 20, 0, 20, 20, 20, 11, 1, 0]
    for at, ids in enumerate(zip(first, second, third, strict=True)):
        allowed = state.allowed()
        for row, token in enumerate(ids):
            if not bool(state.finished()[row]):
                assert bool(allowed[row, token]), (at, row)
        state.advance(torch.tensor(ids))
    assert state.finished().tolist() == [True, True, True]
    assert [max_new_tokens(row) for row in rows] == [9 + 1 + 9, 9, 3 + 9]
    assert max_new_tokens([dataclasses.replace(INTERLEAVED, max_new_tokens=99)]) == 3 * 3 + 2 * 4


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"max_new_tokens": 5}, "max_new_tokens"),
        ({"max_new_tokens": 9.0}, "max_new_tokens"),
        ({"open_id": 0.0}, "open_id"),
        ({"max_pictures": None}, "max_pictures"),
        ({"open_id": 1}, "open_id"),
        ({"max_pictures": 0}, "max_pictures"),
        ({"close_ids": (-1,)}, "close_ids"),
    ],
)
def test_an_interleaving_that_cannot_be_is_refused(change, name):
    with pytest.raises(ValueError, match=f"^{name}: wanted"):
        dataclasses.replace(INTERLEAVED, **change)


def test_rows_interleave_on_their_own():
    state = Constraint([[INTERLEAVED], [INTERLEAVED], [CODES]], 30)
    for ids in ([0, 5, 20], [20, 1, 20], [20, 0, 20]):
        state.advance(torch.tensor(ids))
    assert state.finished().tolist() == [False, True, True]
    assert state.allowed()[0].nonzero()[:, 0].tolist() == [20, 21, 22, 23]


def test_rows_that_are_joined_or_selected_go_on_where_they_stand():
    stop = TextUntil(start=2, stop=10, stop_ids=(), max_new_tokens=9, stop_sequences=((2, 3, 4),))
    story = Interleaved(text=TEXT, picture=CODES, open_id=0, max_pictures=2, max_new_tokens=12)
    rows = [[stop], [CODES, TEXT], [story], [Forced(ids=(7, 8, 9))]]
    fed = [[2, 3, 4], [20, 21, 22, 1], [0, 20, 20, 20, 8, 1], [7, 8, 9]]
    for first in range(3):
        alone = [Constraint([row], 30) for row in rows]
        one, two = Constraint(rows[:2], 30), Constraint(rows[2:], 30)
        for step in range(first):
            one.advance(torch.tensor([fed[row][step] for row in (0, 1)]))
            two.advance(torch.tensor([fed[row][step] for row in (2, 3)]))
            for row in range(4):
                alone[row].advance(torch.tensor([fed[row][step]]))
        both = one.join(two)
        both.select_rows([3, 0, 2])
        for step in range(first, 3):
            assert torch.equal(both.allowed(), torch.cat([alone[i].allowed() for i in (3, 0, 2)]))
            both.advance(torch.tensor([fed[row][step] for row in (3, 0, 2)]))
            for row in (3, 0, 2):
                alone[row].advance(torch.tensor([fed[row][step]]))
            done = [bool(alone[row].finished()) for row in (3, 0, 2)]
            assert both.finished().tolist() == done
        assert done == [True, True, False] and both.ends_early
        both.select_rows([0])
        assert not both.ends_early


def test_masks_behind_guesses_are_those_of_rows_that_have_them():
    rows = [[CODES, TEXT], [TEXT, CODES], [Forced(ids=(7, 0)), TEXT]]
    state = Constraint(rows, 30)
    guesses = torch.tensor([[20, 21, 22], [4, 1, 20], [7, 0, 1]])
    ahead = state.ahead(guesses)
    assert ahead.shape == (3, 4, 30)
    for place in range(4):
        assert torch.equal(ahead[:, place], state.allowed())  # which `ahead` has not moved
        if place < 3:
            state.advance(guesses[:, place])


def test_rows_that_do_not_go_stay_where_they_are():
    text = dataclasses.replace(TEXT, stop_sequences=((6, 7),))
    state, other = (Constraint([[CODES], [text, CODES]], 30) for _ in range(2))
    for ids, going in [((20, 6), (1, 1)), ((20, 7), (1, 0)), ((20, 7), (0, 1)), ((20, 20), (1, 1))]:
        state.advance(torch.tensor(ids), torch.tensor(going).bool())
    for ids in ((20, 6), (20, 7), (20, 20)):
        other.advance(torch.tensor(ids))
    assert torch.equal(state.allowed(), other.allowed())
    assert state.finished().tolist() == other.finished().tolist() == [True, False]


def test_ids_that_can_only_follow_are_known():
    rows = [
        [Forced(ids=(7, 0)), CODES, Forced(ids=(5,))],
        [CodeBlock(start=9, stop=10, length=2), TEXT, Forced(ids=(1, 2))],
        [],
    ]
    state = Constraint(rows, 30)
    assert state.forces and not Constraint([[CODES], [TEXT]], 30).forces
    assert state.known([0, 0, 0], 7).tolist() == [
        [7, 0, -1, -1, -1, 5, -1],
        [9, 9, -1, -1, -1, -1, -1],  # a text decides itself where it ends
        [-1] * 7,
    ]
    state.select_rows([1, 0])
    assert state.known([1, 4], 2).tolist() == [[9, -1], [-1, 5]]
    joined = state.join(Constraint([[Forced(ids=(3,))]], 30))
    assert joined.known([0, 0, 0], 1).tolist() == [[9], [7], [3]]
