"""CD-K: contrastive decoding with the k-th largest probability as its yardstick.

The logits of an expert (the stream with the text) and an amateur (the stream without) become scores
to draw from. Paper: CM3Leon (arXiv 2309.02591), section 3.1.2, equation 3, after contrastive
decoding (arXiv 2210.15097).
"""

from __future__ import annotations

import math
from numbers import Real

from torch import Tensor

from cm3_decoding.whole_numbers import whole


def cd_k(expert_logits: Tensor, amateur_logits: Tensor, alpha: float, k: int) -> Tensor:
    """Score plausible ids by `log p_exp - log p_ama`, all others by -inf.

    An id is plausible if `p_exp >= alpha * (k-th largest p_exp)`. With k = 1 this is contrastive
    decoding, whose plausible set on image codes is so small that it nearly always picks the same
    id; a larger k admits more ids.

    Args:
        expert_logits: Logits (..., V); -inf for ids that are not allowed.
        amateur_logits: Logits (..., V).
        alpha: Share of the yardstick, above 0 and at most 1.
        k: Rank of the yardstick, from 1 to V.

    Returns:
        Scores (..., V), for use as logits.
    """
    if not (isinstance(alpha, Real) and 0 < alpha <= 1):
        raise ValueError(f"alpha: wanted a number above 0 and at most 1, got {alpha!r}")
    if not 1 <= whole("k", k) <= expert_logits.shape[-1]:
        raise ValueError(f"k: wanted a number from 1 to {expert_logits.shape[-1]}, got {k}")
    expert = expert_logits.log_softmax(-1)
    amateur = amateur_logits.log_softmax(-1)
    yardstick = expert.topk(k).values[..., -1:]  # (..., 1)
    # With fewer than k allowed ids the yardstick is -inf, and -inf >= -inf.
    plausible = (expert >= yardstick + math.log(alpha)) & (expert > -math.inf)
    return (expert - amateur).masked_fill(~plausible, -math.inf)
