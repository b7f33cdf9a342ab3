"""Checks that any implementation of `CausalLM` must pass; run them on your own class.

Takes a model, raises `AssertionError` with a reason if a promise is broken.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cm3_model.interface import CausalLM


@torch.no_grad()
def check_language_model(
    model: CausalLM, *, device: torch.device | str = "cpu", tolerance: float = 1e-4
) -> None:
    """Check shapes, causality, the cache, and that rows do not see each other.

    Args:
        model: Any implementation, in eval mode, with a context of at least 12 tokens.
        device: Where its inputs belong.
        tolerance: Largest difference between logits that count as equal.

    Raises:
        AssertionError: Names the broken promise.
    """

    def assert_same(got: Tensor, wanted: Tensor, promise: str) -> None:
        assert got.shape == wanted.shape, f"{promise}: {got.shape} is not {wanted.shape}"
        difference = float((got.float() - wanted.float()).abs().max())
        assert difference <= tolerance, f"{promise}: logits differ by {difference:.3g}"

    vocab_size = model(torch.zeros(1, 1, dtype=torch.long, device=device)).shape[-1]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab_size, (3, 12), generator=generator).to(device)
    rows = torch.arange(3, device=device)

    logits = model(ids)
    assert logits.shape == (3, 12, vocab_size), f"logits (B, T, V): got {tuple(logits.shape)}"
    assert bool(logits.isfinite().all()), "logits must be finite"
    assert_same(model.head(model.hidden(ids)), logits, "head(hidden(ids)) equals model(ids)")
    assert_same(model(ids[1:2]), logits[1:2], "a row alone equals the row in a batch")

    changed = ids.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % vocab_size
    assert_same(model(changed)[:, :6], logits[:, :6], "earlier logits ignore later ids")

    cache = model.make_cache(3, 12)
    lengths = torch.tensor([2, 6, 4], device=device)
    assert_same(
        model.prefill(ids[:, :6], lengths, cache),
        logits[rows, lengths - 1],
        "prefill equals the uncached logits of each row's last id",
    )
    for _ in range(3):
        step = model.decode_one_token(ids[rows, lengths], cache)
        assert_same(step, logits[rows, lengths], "decode_one_token equals uncached logits")
        lengths = lengths + 1

    more = torch.tensor([3, 1, 2], device=device)
    columns = (lengths[:, None] + torch.arange(3, device=device)).clamp(max=11)
    assert_same(
        model.prefill(ids[rows[:, None], columns], more, cache),
        logits[rows, lengths + more - 1],
        "prefill of a filled cache appends",
    )
