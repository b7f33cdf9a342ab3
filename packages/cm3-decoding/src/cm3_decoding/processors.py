"""Processing of logits before an id is drawn: temperature, top-k, top-p, and allowed ids.

Every function maps logits (..., V) to logits (..., V), with -inf for ids that are ruled out. Paper:
CM3Leon (arXiv 2309.02591), section 3.1; top-p is nucleus sampling, arXiv 1904.09751.
"""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from cm3_decoding.whole_numbers import whole


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide logits by a temperature above 0: below 1 it sharpens, above 1 it flattens.

    A row's largest logit becomes 0 first, so that nothing overflows: towards a temperature of 0
    the others become -inf.
    """
    if not (isinstance(temperature, Real) and 0 < temperature < math.inf):
        raise ValueError(f"temperature: wanted a number above 0, got {temperature!r}")
    if temperature == 1:
        return logits
    least = torch.finfo(logits.dtype).tiny  # below it, the division would be one by 0
    return (logits - logits.amax(-1, keepdim=True)) / max(temperature, least)


def top_k_filter(logits: Tensor, top_k: int) -> Tensor:
    """Keep the `top_k` largest logits of every row, and ties with the last of them."""
    top_k = whole("top_k", top_k, 1)
    smallest = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < smallest, -math.inf)


def top_p_filter(logits: Tensor, top_p: float) -> Tensor:
    """Keep the fewest ids of every row whose probabilities reach `top_p`, and ties with the last.

    With probabilities 0.5, 0.3, 0.2 and top_p 0.6 the masses before each id are 0, 0.5, 0.8: the
    first two are kept, because the mass before them is below 0.6.
    """
    if not (isinstance(top_p, Real) and 0 < top_p <= 1):
        raise ValueError(f"top_p: wanted a number above 0 and at most 1, got {top_p!r}")
    probabilities = logits.softmax(-1)
    largest = _largest(probabilities, top_p)
    before = largest.cumsum(-1) - largest
    least = torch.finfo(before.dtype).tiny  # what rounds to 0 would keep nothing
    smallest = largest.masked_fill(before >= max(top_p, least), math.inf).amin(
        -1, keepdim=True
    )  # (..., 1)
    return logits.masked_fill(probabilities < smallest, -math.inf)


def _largest(probabilities: Tensor, mass: float) -> Tensor:
    """Return the largest probabilities (..., n) in order, enough that every row reaches `mass`."""
    few = probabilities.shape[-1] // 8
    if few > 32 and probabilities.device.type == "cpu":  # an accelerator would have to wait
        largest = probabilities.topk(few).values
        if bool((largest.sum(-1) > mass).all()):
            return largest
    return probabilities.sort(dim=-1, descending=True).values


def restrict(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Keep the ids for which the mask `allowed`, (V,) or (..., V), is true; None keeps all."""
    if allowed is None:
        return logits
    return logits.masked_fill(~allowed, -math.inf)
