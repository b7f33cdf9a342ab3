"""Training of the small CLIP on the run's own pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cm3_retrieval import ClipTrainingConfig, train_clip
from cm3_train import progress_bar
from cm3leon.data.pixels import Pictures
from cm3leon.joined_tokenizers import Tokenizers


def train_encoder(
    config: ClipTrainingConfig, pictures: Pictures, tokenizers: Tokenizers, folder: Path
) -> None:
    """Train a CLIP on the training pairs, plain and through the image tokenizer.

    It also judges drawn pictures, and all of those come out of the image tokenizer.

    Args:
        config: Model and training.
        pictures: All pairs.
        tokenizers: The image tokenizer is used.
        folder: Takes the CLIP.
    """
    rows = pictures.pairs.rows("train")
    pixels = pictures.pixels(rows)
    seen = np.concatenate([pixels, tokenizers.through(pixels)])
    rows = np.tile(rows, 2)
    with progress_bar("CLIP") as progress:
        train_clip(
            [pictures.pairs.captions[i] for i in rows],
            seen,
            config,
            groups=pictures.pairs.group_numbers[rows].tolist(),
            folder=folder,
            progress=lambda done, total, loss: progress(done, total),
        )
