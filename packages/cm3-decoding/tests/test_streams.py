import pytest
import torch
from hypothesis import given, strategies as st

from cm3_decoding.streams import lay_out


def ids(*values):
    return torch.tensor(values)


@pytest.fixture
def laid_out():
    return lay_out(
        [
            {"conditional": ids(5, 6), "image_conditional": ids(5, 6), "unconditional": ids(5, 1)},
            {"conditional": ids(7), "image_conditional": ids(8), "unconditional": ids(7)},
        ]
    )


def places(streams, name, rows):
    return torch.arange(streams.size)[streams.places(name, rows)].tolist()


def test_equal_streams_of_a_row_are_laid_out_once(laid_out):
    reading, streams = laid_out
    assert reading.input_ids.tolist() == [[5, 6], [7, 0], [8, 0], [5, 1]]
    assert reading.lengths.tolist() == [2, 1, 1, 2]
    assert streams.size == 4


def test_every_row_of_the_batch_is_fed_its_rows_new_id(laid_out):
    assert laid_out[1].feed(ids(20, 21)).tolist() == [20, 21, 21, 20]


def test_every_stream_finds_its_logits(laid_out):
    streams = laid_out[1]
    assert places(streams, "conditional", [0, 1]) == [0, 1]
    assert isinstance(streams.places("conditional", [0, 1]), slice)
    assert places(streams, "image_conditional", [0, 1]) == [0, 2]
    assert places(streams, "unconditional", [0, 1]) == [3, 1]
    assert places(streams, "unconditional", [1]) == [1]


def test_only_the_conditional_stream_can_be_kept(laid_out):
    streams, order = laid_out[1].select([0, 1], bare=[0, 1])
    assert (order, streams.size) == ([0, 1], 2)
    assert streams.feed(ids(20, 21)).tolist() == [20, 21]


def test_rows_may_have_streams_of_their_own():
    reading, streams = lay_out(
        [{"conditional": ids(1)}, {"conditional": ids(2), "unconditional": ids(3)}]
    )
    assert reading.input_ids[:, 0].tolist() == [1, 2, 3]
    assert places(streams, "unconditional", [1]) == [2]
    with pytest.raises(KeyError):
        streams.places("unconditional", [0])


def test_equal_prompts_of_different_rows_stay_apart_and_are_told():
    reading, _ = lay_out(
        [
            {"conditional": ids(5), "unconditional": ids(1)},
            {"conditional": ids(6), "unconditional": ids(1)},
            {"conditional": ids(5), "unconditional": ids(5)},
        ]
    )
    # row 2 has one prompt in both streams
    assert reading.input_ids[:, 0].tolist() == [5, 6, 5, 1, 1]
    assert reading.distinct.tolist() == [0, 1, 3]
    assert reading.copies.tolist() == [0, 1, 0, 2, 2]


@given(
    st.lists(st.sets(st.sampled_from(["image_conditional", "unconditional"])), min_size=1),
    st.data(),
)
def test_what_is_selected_or_joined_is_found_where_it_was(kinds, data):
    """Each stream of each row has a prompt of its own, which tells it apart."""
    prompts = [
        {name: ids(10 * row + place) for place, name in enumerate(["conditional", *sorted(own)])}
        for row, own in enumerate(kinds)
    ]
    reading, streams = lay_out(prompts)
    rows = data.draw(st.lists(st.sampled_from(range(len(kinds))), min_size=1, unique=True))
    bare = data.draw(st.sets(st.sampled_from(rows)))
    chosen, order = streams.select(rows, bare)
    batch = reading.input_ids[:, 0][order]
    assert len(batch) == chosen.size
    # none moves that need not
    assert all(old == new or old >= len(order) for new, old in enumerate(order))
    joined = chosen.join(lay_out(prompts)[1])
    both = torch.cat([batch, reading.input_ids[:, 0]])
    wanted = [
        {"conditional": prompts[row]["conditional"]} if row in bare else prompts[row]
        for row in rows
    ] + prompts
    for row, own in enumerate(wanted):
        for name, prompt in own.items():
            assert both[joined.places(name, [row])].tolist() == prompt.tolist()
    fed = joined.feed(torch.arange(len(wanted)))
    owners = [
        [row for row, own in enumerate(wanted) if int(x) in map(int, own.values())] for x in both
    ]
    assert all(int(row) in owner for row, owner in zip(fed, owners, strict=True))


def test_a_bad_prompt_is_named():
    with pytest.raises(ValueError, match="^unconditional: wanted at least one id .* in row 0"):
        lay_out([{"conditional": ids(5), "unconditional": torch.tensor([])}])
    with pytest.raises(ValueError, match="^prompts: wanted ids of at least 0 in row 1, got -3"):
        lay_out([{"conditional": ids(5)}, {"conditional": ids(4, -3)}])
