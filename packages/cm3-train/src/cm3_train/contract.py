"""Checks that anyone can run on a model of their own: does it train here?

Plain asserts, no test framework.
"""

from __future__ import annotations

import torch
from torch import nn

from cm3_train.interface import TrainableModel


def check_trainable_model(model: nn.Module, *, vocab_size: int, length: int = 8) -> None:
    """Assert what training relies on.

    Hidden states and logits have their shapes, the head works on chosen positions, no position sees
    a later id, and the loss reaches the parameters.

    Args:
        model: In evaluation mode, so that it is deterministic.
        vocab_size: Ids are drawn from [0, vocab_size), logits have that width.
        length: Of the sequences tried.
    """
    assert isinstance(model, TrainableModel), "the model has no hidden or no head"
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab_size, (2, length), generator=generator).to(device)

    hidden = model.hidden(ids)
    assert hidden.ndim == 3 and hidden.shape[:2] == (2, length), (
        f"hidden: wanted (2, {length}, D), got {tuple(hidden.shape)}"
    )
    logits = model.head(hidden)
    assert logits.shape == (2, length, vocab_size), (
        f"head: wanted (2, {length}, {vocab_size}), got {tuple(logits.shape)}"
    )
    chosen = torch.zeros(2, length, dtype=torch.bool, device=device)
    chosen[0, 1] = chosen[1, -1] = True
    assert torch.allclose(model.head(hidden[chosen]), logits[chosen], atol=1e-5), (
        "head: chosen positions give other logits than all positions"
    )

    changed = ids.clone()
    changed[:, length // 2 :] = (changed[:, length // 2 :] + 1) % vocab_size
    before = slice(0, length // 2)
    assert torch.allclose(model.hidden(changed)[:, before], hidden[:, before], atol=1e-5), (
        "hidden: a position sees later ids"
    )

    # The gradient of a start at zero may be zero too, so some parameter must move, not every one.
    loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids.flatten())
    gradients = torch.autograd.grad(
        loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True
    )
    assert any(g is not None and g.abs().sum() > 0 for g in gradients), "no gradient arrives"
