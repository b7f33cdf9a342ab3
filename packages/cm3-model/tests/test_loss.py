import pytest
import torch
import torch.nn.functional as F

from cm3_model import chunked_cross_entropy


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_loss_and_gradients_are_those_of_whole_logits(paper_decoder, ids, chunk_size):
    labels = ids.roll(-1, 1)
    labels[:, -1] = -100
    labels[0, :5] = -100
    whole = F.cross_entropy(paper_decoder(ids).flatten(0, 1), labels.flatten())
    wanted = torch.autograd.grad(whole, list(paper_decoder.parameters()))
    loss = chunked_cross_entropy(
        paper_decoder.hidden(ids), labels, paper_decoder.head, chunk_size=chunk_size
    )
    torch.testing.assert_close(loss, whole)
    got = torch.autograd.grad(loss, list(paper_decoder.parameters()))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_no_piece_is_larger_than_asked_for(paper_decoder, ids):
    seen = []

    def head(states):
        seen.append(len(states))
        return paper_decoder.head(states)

    chunked_cross_entropy(paper_decoder.hidden(ids), ids, head, chunk_size=10).backward()
    assert max(seen) == 10
    assert sum(seen) == 2 * ids.numel()  # forward, and once more for backward


def test_bad_input_is_named(paper_decoder, ids):
    hidden, head = paper_decoder.hidden(ids), paper_decoder.head
    with pytest.raises(ValueError, match="labels: wanted shape"):
        chunked_cross_entropy(hidden, ids[:1], head)
    with pytest.raises(ValueError, match="labels: wanted at least one"):
        chunked_cross_entropy(hidden, torch.full_like(ids, -100), head)
    with pytest.raises(ValueError, match="chunk_size: wanted at least 1, got 0"):
        chunked_cross_entropy(hidden, ids, head, chunk_size=0)
