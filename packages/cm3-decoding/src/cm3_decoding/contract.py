"""Checks that every `LanguageModel` must pass; run them on your own."""

from __future__ import annotations

import torch
from torch import Tensor

from cm3_decoding.interface import DecodesSpans, LanguageModel, ReadsAhead


@torch.inference_mode()
def check_language_model(
    model: LanguageModel,
    vocab_size: int,
    *,
    device: torch.device | str = "cpu",
    tolerance: float = 1e-4,
) -> None:
    """Check shapes, that decoding equals reading everything at once, and that rows are independent.

    What a cache offers besides, such as `select_rows`, is checked too.

    Args:
        model: Any implementation, in eval mode, with a context of at least 8 tokens.
        vocab_size: Number of its logits.
        device: The device of its inputs.
        tolerance: Largest difference between logits that count as equal.

    Raises:
        AssertionError: A promise is broken; the message names it.
    """

    def assert_same(got: Tensor, wanted: Tensor, promise: str) -> None:
        assert got.shape == wanted.shape, f"{promise}: {got.shape} is not {wanted.shape}"
        difference = float((got.float() - wanted.float()).abs().max())
        assert difference <= tolerance, f"{promise}: logits differ by {difference:.3g}"

    def read(prompt: Tensor) -> Tensor:
        length = torch.tensor([len(prompt)], device=device)
        return model.prefill(prompt[None], length, model.make_cache(1, 8))[0]  # (V,)

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab_size, (3, 8), generator=generator).to(device)
    rows = torch.arange(3, device=device)
    lengths = torch.tensor([2, 5, 3], device=device)

    cache = model.make_cache(3, 8)
    logits = model.prefill(ids[:, :5], lengths, cache)
    assert logits.shape == (3, vocab_size), f"logits (B, V): got {tuple(logits.shape)}"
    assert bool(logits.isfinite().all()), "logits must be finite"
    for _ in range(4):
        alone = torch.stack([read(ids[row, : lengths[row]]) for row in range(3)])
        assert_same(logits, alone, "a row in a batch equals its ids read alone, at once")
        if int(lengths.max()) < 8:
            logits = model.decode_one_token(ids[rows, lengths], cache)
            lengths = lengths + 1

    if isinstance(model, DecodesSpans):
        cache = model.make_cache(1, 8)
        model.prefill(ids[:1, :3], torch.tensor([3], device=device), cache)
        some = model.decode_span(ids[:1, 3], cache, 1, vocab_size - 1)
        wanted = read(ids[0, :4])[None, 1 : vocab_size - 1]
        assert_same(some, wanted, "`decode_span` has the logits of its ids")
    if isinstance(model, ReadsAhead) and hasattr(cache, "forget"):
        cache = model.make_cache(3, 8)
        lengths = torch.tensor([2, 4, 3], device=device)
        model.prefill(ids[:, :4], lengths, cache)
        new = ids[rows[:, None], lengths[:, None] + torch.arange(3, device=device)]  # (3, 3)
        some = model.decode_several(new, cache, 1, vocab_size - 1)
        wrong = torch.tensor([0, 2, 1], device=device)
        cache.forget(wrong)
        for column in range(3):
            wanted = torch.stack([read(ids[row, : lengths[row] + column + 1]) for row in range(3)])
            wanted = wanted[:, 1 : vocab_size - 1]
            assert_same(some[:, column], wanted, "`decode_several` has the logits after each id")
        lengths = lengths + 3 - wrong
        again = model.decode_one_token(ids[rows, lengths], cache)
        wanted = torch.stack([read(ids[row, : lengths[row] + 1]) for row in range(3)])
        assert_same(again, wanted, "a row goes on behind the ids that `forget` leaves")
    if not hasattr(cache, "select_rows"):
        return
    old = model.make_cache(2, 8)
    model.prefill(ids[:2, :4], torch.tensor([3, 4], device=device), old)
    old.select_rows(torch.tensor([1, 0, 1], device=device))
    prompts = [ids[1, :4], ids[0, :3], ids[1, :4]]
    new = ids[2, :6].view(3, 2)
    if getattr(old, "shares_prefixes", False):
        more = torch.tensor([1, 2, 2], device=device)
        logits = model.prefill(new, more, old)
        prompts = [
            torch.cat([text, own[:size]])
            for text, own, size in zip(prompts, new, more, strict=True)
        ]
        alone = torch.stack([read(prompt) for prompt in prompts])
        assert_same(logits, alone, "ids read behind others equal all read at once")
    logits = model.decode_one_token(ids[rows, 6], old)
    prompts = [torch.cat([text, one]) for text, one in zip(prompts, ids[:, 6:7], strict=True)]
    alone = torch.stack([read(prompt) for prompt in prompts])
    assert_same(logits, alone, "a row that `select_rows` chose goes on as the old one")
