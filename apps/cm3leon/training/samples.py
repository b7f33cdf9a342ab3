"""Pictures and captions drawn while the decoder trains, as one sheet a validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from cm3_model import Decoder
from cm3_train import Draw, Shown
from cm3leon.data.memory import Neighbours
from cm3leon.data.pixels import Pictures
from cm3leon.drawing.describe import describing
from cm3leon.drawing.draw import draw
from cm3leon.parts import Parts
from cm3leon.sheets import save, sheet

TITLES = ("held out", "through the tokenizer", "drawn")


def sheets_of(
    parts_with: Callable[[Decoder], Parts],
    pictures: Pictures,
    neighbours: Neighbours,
    count: int,
    folder: Path,
) -> Draw:
    """Return what draws the first captions of the validation split, and describes their pictures.

    Each call writes `folder / "step-000500.png"`: a row a caption, with the picture it belongs to,
    the best that the codes could show, and what was drawn; below the caption what the model reads
    in the picture. The same captions, documents and seeds every time.

    Args:
        parts_with: The run's parts around the decoder of the moment.
        pictures: Where captions and pictures are.
        neighbours: Documents before each caption.
        count: Captions.
        folder: Takes the sheets.
    """
    rows = pictures.pairs.rows("validation")[:count]
    captions = [pictures.pairs.captions[row] for row in rows]
    pixels = pictures.pixels(rows)

    def drawn(model: nn.Module, step: int) -> Shown:
        parts = parts_with(cast(Decoder, model))
        keys = [int(key) for key in pictures.pairs.keys[rows]]
        with torch.compiler.set_stance("force_eager"):  # a cache's shapes are not training's
            made = draw(
                parts,
                captions,
                contexts=[neighbours.for_caption(key, parts.habits.retrieve) for key in keys],
                samplers=parts.habits.samplers[:1],
                seeds=np.arange(len(rows))[:, None],
            ).pixels[:, 0]
            read = [
                describing(parts, Image.fromarray(picture), candidates=1)
                .carry_out(parts)
                .captions[0]
                for picture in pixels
            ]
        through = parts.tokenizers.through(pixels)
        lines = [f"{caption} - read: {told}" for caption, told in zip(captions, read, strict=True)]
        cells = [list(row) for row in zip(pixels, through, made, strict=True)]
        whole = sheet(list(zip(lines, cells, strict=True)), [TITLES])
        save(whole, folder / f"step-{step:06d}.png")
        return Shown(np.asarray(whole), "\n\n".join(lines))

    return drawn
