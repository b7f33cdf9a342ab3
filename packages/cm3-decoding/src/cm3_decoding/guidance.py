"""Guidance: the logits of two or three streams combined into one.

It leads away from the model's output without the prompt, or without a part of it. Paper: CM3Leon
(arXiv 2309.02591), section 3.1.1, where the unconditional stream is the same prompt with a mask
token in place of the caption, and 4.1, where editing weighs the source picture and the instruction
separately, after InstructPix2Pix (arXiv 2211.09800, equation 3).
"""

from __future__ import annotations

import math

from torch import Tensor


def classifier_free_guidance(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Return `uncond + scale * (cond - uncond)` for logits of the same shape.

    Scale 0 is the unconditional stream, 1 exactly the conditional one; above 1 it goes beyond. An
    id that the conditional stream rules out by -inf stays ruled out.
    """
    if scale == 1:
        return cond  # the sum below would round
    return _ruled_out(uncond + scale * (cond - uncond), cond)


def image_text_guidance(
    cond: Tensor,
    image_cond: Tensor,
    uncond: Tensor,
    *,
    text_scale: float,
    image_scale: float,
) -> Tensor:
    """Return `uncond + image_scale * (image_cond - uncond) + text_scale * (cond - image_cond)`.

    An id that the conditional stream rules out by -inf stays ruled out.

    Args:
        cond: Logits with source picture and text.
        image_cond: Logits of the same shape, with the picture and without the text.
        uncond: Logits of the same shape, with neither.
        text_scale: Scale of the text; 7.5 for editing in the paper (4.1).
        image_scale: Scale of the picture; 1.5 there. 1 is guidance by text alone and ignores
            `uncond`; a value equal to `text_scale` is plain guidance and ignores `image_cond`.
    """
    if image_scale == 1:
        return classifier_free_guidance(cond, image_cond, text_scale)
    if image_scale == text_scale:
        return classifier_free_guidance(cond, uncond, text_scale)
    guided = uncond + image_scale * (image_cond - uncond) + text_scale * (cond - image_cond)
    return _ruled_out(guided, cond)


def _ruled_out(guided: Tensor, cond: Tensor) -> Tensor:
    """Return -inf where `cond` has it: the sum there is NaN if another stream has it too."""
    return guided.masked_fill(cond == -math.inf, -math.inf)
