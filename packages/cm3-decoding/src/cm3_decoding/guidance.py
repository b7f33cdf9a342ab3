"""Classifier-free guidance: away from what the model would say without the prompt.

Takes the logits of two streams, gives one. Paper: 3.1.1 of CM3Leon (arXiv 2309.02591); the
unconditional stream is the same prompt with the caption replaced by a mask token.
"""

from __future__ import annotations

from torch import Tensor


def classifier_free_guidance(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """`uncond + scale * (cond - uncond)`, of logits with the same shape.

    Scale 0 is the unconditional stream, 1 the conditional one (exactly), more than 1 goes beyond.
    """
    if scale == 1:
        return cond  # the sum below would round
    return uncond + scale * (cond - uncond)
