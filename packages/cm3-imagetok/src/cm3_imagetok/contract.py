"""Checks that every `ImageTokenizer` must pass; run them on your own."""

from __future__ import annotations

import torch

from cm3_imagetok.interface import ImageTokenizer


def check_image_tokenizer(tokenizer: ImageTokenizer, image_size: int) -> None:
    """Check shapes, types, ranges and determinism.

    Args:
        tokenizer: The implementation, in evaluation mode.
        image_size: A side in pixels that it accepts.

    Raises:
        AssertionError: A rule does not hold; the message names it.
    """
    factor, count = tokenizer.downsampling, tokenizer.num_codes
    assert isinstance(count, int) and count > 0, "num_codes is a positive int"
    assert isinstance(factor, int) and factor > 0, "downsampling is a positive int"
    assert image_size % factor == 0, "image_size is a multiple of downsampling"
    images = (
        torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    )
    codes = tokenizer.encode(images)
    side = image_size // factor
    assert codes.shape == (2, side, side), "encode gives (B, H / downsampling, W / downsampling)"
    assert codes.dtype == torch.int64, "codes are int64"
    assert 0 <= int(codes.min()) and int(codes.max()) < count, "codes lie in [0, num_codes)"
    assert torch.equal(codes, tokenizer.encode(images)), "encode is deterministic"
    assert torch.equal(codes[:1], tokenizer.encode(images[:1])), "encode does not look at the batch"
    decoded = tokenizer.decode(codes)
    assert decoded.shape == images.shape, "decode gives (B, 3, h * downsampling, w * downsampling)"
    assert decoded.is_floating_point(), "pictures are floating point"
    assert -1 <= float(decoded.min()) and float(decoded.max()) <= 1, "pictures lie in [-1, 1]"
    assert torch.equal(decoded, tokenizer.decode(codes)), "decode is deterministic"
