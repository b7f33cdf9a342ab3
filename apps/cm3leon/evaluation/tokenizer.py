"""How good the image tokenizer is on pictures that training has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cm3_imagetok import codebook_use, frechet_distance, psnr, to_pixels, to_tensor
from cm3leon.data.pixels import Pictures
from cm3leon.joined_tokenizers import BATCH, Tokenizers

HOW = {
    "imagetok.heldout_psnr_db": "Mean over the test pictures of 10 log10(255^2 / mean squared "
    "error), the picture against itself through the tokenizer.",
    "imagetok.codes_used_share": "Share of the codebook that occurs in the codes of the test, "
    "validation and variant pictures (none of them seen in training).",
    "imagetok.code_perplexity_share": "2 to the entropy of those codes' frequencies, over the size "
    "of the codebook.",
    "imagetok.rfid": "Frechet distance of the Inception-v3 features of those pictures (test, "
    "validation, variants) and of the same through the tokenizer. Few pictures make it large: "
    "compare it with runs on the same ones.",
}


def image_tokenizer_figures(
    tokenizers: Tokenizers, pictures: Pictures, inception: Path | None = None
) -> dict[str, Any]:
    """Compute quality and codebook use.

    Args:
        tokenizers: The image tokenizer is judged.
        pictures: Held-out ones are used.
        inception: torch-fidelity's weights of Inception-v3; with them the figures have rFID.
    """
    test = set(pictures.pairs.rows("test").tolist())
    rows = pictures.pairs.rows("test", "validation", "variants")
    decibels, codes, real, rebuilt = [], [], [], []
    features = None
    if inception is not None:
        from cm3leon.evaluation.inception import inception_features

        features = inception_features(inception)
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        pixels = pictures.pixels(part)
        images = to_tensor(pixels).to(tokenizers.device)
        found = tokenizers.image.encode(images)
        seen = tokenizers.image.decode(found)
        quality = psnr(seen, images)
        decibels += [float(q) for q, row in zip(quality, part, strict=True) if int(row) in test]
        codes.append(found.cpu())
        if features is not None:
            real.append(features(pixels))
            rebuilt.append(features(to_pixels(seen)))
    use = codebook_use(torch.cat(codes), tokenizers.image.num_codes)
    figures: dict[str, Any] = {
        "heldout_psnr_db": float(np.mean(decibels)),
        "codes_per_picture": tokenizers.num_codes_per_image,
        "num_codes": tokenizers.image.num_codes,
        "codes_used_share": use.used_share,
        "code_perplexity_share": use.perplexity_share,
    }
    if features is not None:
        figures["rfid"] = frechet_distance(torch.cat(real), torch.cat(rebuilt))
    return figures
