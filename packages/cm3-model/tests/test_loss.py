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


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_with_the_heads_matrix_too(make, ids, chunk_size, tied):
    model = make(tie_embeddings=tied)
    labels = ids.roll(-1, 1)
    labels[:, -1] = -100
    whole = F.cross_entropy(model(ids).flatten(0, 1), labels.flatten())
    wanted = torch.autograd.grad(3 * whole, list(model.parameters()))
    size = {"chunk_size": chunk_size}
    loss = chunked_cross_entropy(model.hidden(ids), labels, model.head_weight, **size)
    torch.testing.assert_close(loss, whole)
    got = torch.autograd.grad(3 * loss, list(model.parameters()))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        again = chunked_cross_entropy(model.hidden(ids), labels, model.head_weight, **size)
    torch.testing.assert_close(again, whole)


def test_the_heads_matrix_keeps_to_autocast(paper_decoder, ids):
    weight = paper_decoder.head_weight
    with torch.autocast("cpu", torch.bfloat16):
        hidden = paper_decoder.hidden(ids)
        wanted = chunked_cross_entropy(hidden, ids, paper_decoder.head)
        loss = chunked_cross_entropy(hidden, ids, weight)
    assert loss.dtype == torch.float32
    assert abs(float(loss.detach() - wanted.detach())) < 1e-2
    (theirs,) = torch.autograd.grad(wanted, weight, retain_graph=True)
    (ours,) = torch.autograd.grad(loss, weight)
    assert ours.dtype == torch.float32
    assert float((ours - theirs).norm() / theirs.norm()) < 0.02


def test_a_frozen_head_gets_no_gradient(ids):
    states = torch.randn(*ids.shape, 8, requires_grad=True)
    weight = torch.randn(int(ids.max()) + 1, 8)
    chunked_cross_entropy(states, ids, weight, chunk_size=5).backward()
    wanted = states.detach().requires_grad_()
    F.cross_entropy((wanted @ weight.T).flatten(0, 1), ids.flatten()).backward()
    torch.testing.assert_close(states.grad, wanted.grad)
    assert weight.grad is None


def test_no_piece_is_larger_than_asked_for(paper_decoder, ids):
    seen = []

    def head(states):
        seen.append(len(states))
        return paper_decoder.head(states)

    chunked_cross_entropy(paper_decoder.hidden(ids), ids, head, chunk_size=10).backward()
    assert max(seen) == 10
    assert ids.numel() == 72
    assert sum(seen) == 72 + 70  # forward, and once more for backward, but for the last two


def test_bad_input_is_named(paper_decoder, ids):
    hidden, head = paper_decoder.hidden(ids), paper_decoder.head
    with pytest.raises(ValueError, match="labels: wanted shape"):
        chunked_cross_entropy(hidden, ids[:1], head)
    with pytest.raises(ValueError, match="labels: wanted at least one"):
        chunked_cross_entropy(hidden, torch.full_like(ids, -100), head)
    with pytest.raises(ValueError, match="chunk_size: wanted at least 1, got 0"):
        chunked_cross_entropy(hidden, ids, head, chunk_size=0)
