"""Contrastive decoding with the k-th largest probability as yardstick: CD-K.

Takes the logits of an expert (the stream with the text) and an amateur (the stream without),
gives scores to draw from. Paper: equation (3), 3.1.2 of CM3Leon (arXiv 2309.02591), after
contrastive decoding (arXiv 2210.15097).
"""

from __future__ import annotations

import math

from torch import Tensor


def cd_k(expert_logits: Tensor, amateur_logits: Tensor, alpha: float, k: int) -> Tensor:
    """Score ids by `log p_exp - log p_ama` if they are plausible, by -inf if not.

    Plausible is what has `p_exp >= alpha * (k-th largest p_exp)`. With k = 1 this is contrastive
    decoding, whose set is so small on image codes that it nearly always picks the same id; a
    larger k lets more ids in.

    Args:
        expert_logits: (..., V); -inf for ids that may not come.
        amateur_logits: (..., V).
        alpha: Share of the yardstick, above 0 and at most 1.
        k: Rank of the yardstick, from 1 to V.

    Returns:
        Scores (..., V), to be used as logits.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha: wanted a number above 0 and at most 1, got {alpha}")
    if not 1 <= k <= expert_logits.shape[-1]:
        raise ValueError(f"k: wanted a number from 1 to {expert_logits.shape[-1]}, got {k}")
    expert = expert_logits.log_softmax(-1)
    amateur = amateur_logits.log_softmax(-1)
    yardstick = expert.topk(k).values[..., -1:]  # (..., 1)
    # Where fewer than k ids may come the yardstick is -inf, and -inf >= -inf.
    plausible = (expert >= yardstick + math.log(alpha)) & (expert > -math.inf)
    return (expert - amateur).masked_fill(~plausible, -math.inf)
