import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cm3_train import bits, next_token_loss, split_losses, token_losses

VOCAB = 40


class Model(nn.Module):
    """States that depend on weights behind the head, so that gradients must reach those too."""

    def __init__(self):
        super().__init__()
        self.states = nn.Embedding(VOCAB, 8)
        self.output = nn.Linear(8, VOCAB, bias=False)

    def forward(self, ids):
        return self.output(torch.tanh(self.states(ids)))

    def hidden(self, ids):
        return torch.tanh(self.states(ids))


@pytest.fixture
def case():
    torch.manual_seed(0)
    ids = torch.randint(VOCAB, (2, 36))
    labels = ids.roll(-1, 1)
    labels[:, -1] = labels[0, :5] = -100
    return Model(), ids, labels


def heads(model):
    return {"matrix": model.output.weight, "callable": model.output}


@pytest.mark.parametrize("kind", ["matrix", "callable"])
@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_loss_and_gradients_are_those_of_whole_logits(case, chunk_size, kind):
    model, ids, labels = case
    weights = list(model.parameters())
    each = F.cross_entropy(model(ids).flatten(0, 1), labels.flatten(), reduction="none")
    wanted = torch.autograd.grad(3 * each.sum(), weights)
    found = token_losses(model.hidden(ids), labels, heads(model)[kind], chunk_size=chunk_size)
    torch.testing.assert_close(found.total, each.sum())
    torch.testing.assert_close(found.nats, each[labels.flatten() != -100])
    assert not found.nats.requires_grad
    assert found.labels.tolist() == labels[labels != -100].tolist()
    got = torch.autograd.grad(3 * found.total, weights)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        again = token_losses(model.hidden(ids), labels, heads(model)[kind], chunk_size=chunk_size)
    torch.testing.assert_close(again.nats, found.nats)
    mean = next_token_loss(model.hidden(ids), labels, heads(model)[kind])
    torch.testing.assert_close(mean, each.sum() / (labels != -100).sum())


@pytest.mark.parametrize("kind", ["matrix", "callable"])
@pytest.mark.parametrize("chunk_size", [7, 1000])
def test_weights_are_those_of_a_weighted_sum(case, chunk_size, kind):
    model, ids, labels = case
    parameters, weights = list(model.parameters()), torch.rand(labels.shape)
    each = F.cross_entropy(model(ids).flatten(0, 1), labels.flatten(), reduction="none")
    wanted = torch.autograd.grad((each * weights.flatten()).sum(), parameters)
    found = token_losses(
        model.hidden(ids), labels, heads(model)[kind], weights=weights, chunk_size=chunk_size
    )
    torch.testing.assert_close(found.total, (each * weights.flatten()).sum())
    torch.testing.assert_close(found.nats, each[labels.flatten() != -100])
    for a, b in zip(torch.autograd.grad(found.total, parameters), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"weights: wanted shape \(2, 36\), got \(2,\)"):
        token_losses(model.hidden(ids), labels, model.output, weights=torch.ones(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_matrix_keeps_to_autocast(case, dtype):
    model, ids, labels = case
    ids, labels = ids.repeat(1, 120), labels.repeat(1, 120)  # thousands of small slopes
    weight = model.output.weight
    exact = next_token_loss(model.hidden(ids), labels, weight)
    (wanted,) = torch.autograd.grad(exact, weight)
    with torch.autocast("cpu", dtype):
        loss = next_token_loss(model.hidden(ids), labels, weight)
    (got,) = torch.autograd.grad(loss, weight)
    assert loss.dtype == got.dtype == torch.float32
    assert abs(float(loss.detach() - exact.detach())) < 1e-2
    assert float((got - wanted).norm() / wanted.norm()) < 0.02


def test_a_frozen_head_gets_no_gradient(case):
    _, ids, labels = case
    states = torch.randn(*ids.shape, 8, requires_grad=True)
    weight = torch.randn(VOCAB, 8)
    token_losses(states, labels, weight, chunk_size=5).total.backward()
    wanted = states.detach().requires_grad_()
    logits = (wanted @ weight.T).flatten(0, 1)
    F.cross_entropy(logits, labels.flatten(), reduction="sum").backward()
    torch.testing.assert_close(states.grad, wanted.grad)
    assert weight.grad is None


def test_no_piece_is_larger_than_asked_for_and_padding_costs_no_logits(case):
    model, ids, labels = case
    seen = []

    def head(states):
        seen.append(len(states))
        return model.output(states)

    token_losses(model.hidden(ids), labels, head, chunk_size=10).total.backward()
    assert max(seen) == 10
    counting = int((labels != -100).sum())
    assert counting == 65
    assert sum(seen) == 65 + 60  # forward, and once more for backward, but for the last five


def test_half_precision_logits_are_summed_in_float32(case):
    model, ids, labels = case
    model = model.bfloat16()
    for head in heads(model).values():
        assert next_token_loss(model.hidden(ids), labels, head).dtype == torch.float32


@pytest.mark.parametrize("kind", ["matrix", "callable"])
def test_nothing_that_counts_is_a_loss_of_zero_and_no_mean(case, kind):
    model, ids, labels = case
    nothing, head = torch.full_like(labels, -100), heads(model)[kind]
    losses = token_losses(model.hidden(ids), nothing, head)
    losses.total.backward()
    assert float(losses.total.detach()) == 0 and len(losses.nats) == len(losses.labels) == 0
    assert float(model.states.weight.grad.abs().sum()) == 0
    with pytest.raises(ValueError, match="labels: wanted at least one position that counts"):
        next_token_loss(model.hidden(ids), nothing, head)


def test_bad_input_is_named(case):
    model, ids, labels = case
    with pytest.raises(ValueError, match=r"labels: wanted shape \(2, 36\), got \(1, 36\)"):
        token_losses(model.hidden(ids), labels[:1], model.output)
    with pytest.raises(ValueError, match="chunk_size: wanted at least 1, got 0"):
        token_losses(model.hidden(ids), labels, model.output, chunk_size=0)


def test_split_by_label(case):
    model, ids, labels = case
    _, nats, targets = token_losses(model.hidden(ids), labels, model.output)
    image, text = split_losses(nats, targets, (3, 6))
    assert image.tolist() == [v for v, t in zip(nats, targets, strict=True) if t in (3, 4, 5)]
    assert len(image) + len(text) == len(nats)


def test_bits():
    assert bits(math.log(8)) == pytest.approx(3)
    assert bits(torch.tensor(math.log(2))) == pytest.approx(1)


def test_a_second_pass_backward_is_refused(case):
    model, ids, labels = case[:3]
    loss = token_losses(model.hidden(ids), labels, model.output.weight).total
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="wanted one pass backward, got a second"):
        loss.backward()
