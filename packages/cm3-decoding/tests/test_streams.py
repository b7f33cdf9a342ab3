import pytest
import torch

from cm3_decoding.streams import Streams


def ids(*values):
    return torch.tensor(values)


@pytest.fixture
def streams():
    return Streams(
        {
            "conditional": [ids(5, 6), ids(7)],
            "image_conditional": [ids(5, 6), ids(8)],
            "unconditional": [ids(5, 1), ids(7)],
        }
    )


def test_equal_streams_of_a_row_are_laid_out_once(streams):
    assert streams.input_ids.tolist() == [[5, 6], [7, 0], [8, 0], [5, 1]]
    assert streams.lengths.tolist() == [2, 1, 1, 2]


def test_every_row_of_the_batch_is_fed_its_rows_new_id(streams):
    assert streams.feed(ids(20, 21)).tolist() == [20, 21, 21, 20]


def test_every_stream_finds_its_logits(streams):
    logits = torch.arange(4.0)[:, None].expand(4, 3)
    found = {name: part[:, 0].tolist() for name, part in streams.split(logits).items()}
    assert found == {"conditional": [0, 1], "image_conditional": [0, 2], "unconditional": [3, 1]}


def test_only_the_conditional_stream_can_be_kept(streams):
    assert streams.keep_conditional().tolist() == [0, 1]
    assert streams.lengths.tolist() == [2, 1]
    assert streams.feed(ids(20, 21)).tolist() == [20, 21]
    logits = torch.randn(2, 3)
    assert torch.equal(streams.split(logits)["conditional"], logits)


def test_equal_prompts_of_different_rows_stay_apart_and_are_told():
    streams = Streams(
        {
            "conditional": [ids(5), ids(6), ids(5)],
            "unconditional": [ids(1), ids(1), ids(5)],
        }
    )
    # row 2 has one prompt in both streams
    assert streams.input_ids[:, 0].tolist() == [5, 6, 5, 1, 1]
    assert streams.distinct.tolist() == [0, 1, 3]
    assert streams.copies.tolist() == [0, 1, 0, 2, 2]


def test_a_bad_prompt_is_named():
    with pytest.raises(ValueError, match="^unconditional: wanted at least one id .* in row 0"):
        Streams({"conditional": [ids(5)], "unconditional": [torch.tensor([])]})
    with pytest.raises(ValueError, match="^prompts: wanted ids of at least 0 in row 1, got -3"):
        Streams({"conditional": [ids(5), ids(4, -3)]})
