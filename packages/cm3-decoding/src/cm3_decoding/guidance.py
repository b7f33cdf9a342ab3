"""Guidance: away from what the model would say without the prompt, or without a part of it.

Takes the logits of two or three streams, gives one. Paper: 3.1.1 of CM3Leon (arXiv 2309.02591),
where the unconditional stream is the same prompt with the caption replaced by a mask token, and
4.1, where editing weighs the source picture and the instruction apart, after InstructPix2Pix
(arXiv 2211.09800, equation 3).
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


def image_text_guidance(
    cond: Tensor,
    image_cond: Tensor,
    uncond: Tensor,
    *,
    text_scale: float,
    image_scale: float,
) -> Tensor:
    """`uncond + image_scale * (image_cond - uncond) + text_scale * (cond - image_cond)`.

    Args:
        cond: logits with source picture and text.
        image_cond: the same shape, with the picture and without the text.
        uncond: the same shape, with neither.
        text_scale: 7.5 for editing in the paper (4.1).
        image_scale: 1.5 there. 1 leaves text guidance alone, and does not read `uncond`;
            `text_scale` gives plain guidance, and does not read `image_cond`.
    """
    if image_scale == 1:
        return classifier_free_guidance(cond, image_cond, text_scale)
    if image_scale == text_scale:
        return classifier_free_guidance(cond, uncond, text_scale)
    return uncond + image_scale * (image_cond - uncond) + text_scale * (cond - image_cond)
