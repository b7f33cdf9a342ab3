import math

import numpy as np
import pytest
import torch

from cm3_train import bits, next_token_loss, split_losses, token_losses


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, 4, generator=generator)
    weight = torch.randn(7, 4, generator=generator)
    labels = torch.randint(7, (3, 5), generator=generator)
    labels[0, 3:] = labels[2, 1:] = -100
    return hidden, weight, labels


def reference(logits, labels):
    out = []
    for row, wanted in zip(logits.reshape(-1, 7), labels.reshape(-1), strict=True):
        if wanted != -100:
            out.append(np.log(np.exp(row).sum()) - row[wanted])
    return np.array(out)


def test_against_numpy(case):
    hidden, weight, labels = case
    logits = hidden @ weight.T
    wanted = reference(logits.double().numpy(), labels.numpy())
    losses, targets = token_losses(hidden, labels, lambda h: h @ weight.T)
    assert np.allclose(losses, wanted, atol=1e-5)
    assert targets.tolist() == labels[labels != -100].tolist()
    assert np.isclose(next_token_loss(logits, labels), wanted.mean(), atol=1e-5)


def test_padding_costs_no_logits(case):
    hidden, weight, labels = case
    rows = []

    def head(chosen):
        rows.append(chosen.shape)
        return chosen @ weight.T

    next_token_loss(hidden, labels, head)
    assert rows == [(int((labels != -100).sum()), 4)]


def test_half_precision_logits_are_summed_in_float32(case):
    hidden, weight, labels = case
    loss = next_token_loss(hidden.bfloat16(), labels, lambda h: h @ weight.T.bfloat16())
    assert loss.dtype == torch.float32


def test_split_by_label(case):
    hidden, weight, labels = case
    losses, targets = token_losses(hidden, labels, lambda h: h @ weight.T)
    image, text = split_losses(losses, targets, (3, 6))
    assert image.tolist() == [v for v, t in zip(losses, targets, strict=True) if t in (3, 4, 5)]
    assert len(image) + len(text) == len(losses)


def test_bits():
    assert bits(math.log(8)) == pytest.approx(3)
    assert bits(torch.tensor(math.log(2))) == pytest.approx(1)
