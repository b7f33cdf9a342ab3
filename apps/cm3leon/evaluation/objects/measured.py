"""A detector for embedded compositions: parts of the picture that are no paper, measured and named.

Where a thing is, and in which colour, is measured; a small network names it. Pictures are of things
on plain paper, so that no weights of others are needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cm3_train.artifact import atomic_file
from cm3leon.data.palette import PAPERS, colour_of_paper, colour_of_thing, rgb
from cm3leon.data.pixels import Pictures
from cm3leon.evaluation.instructions.shapes import around, parts_of, thing_mask
from cm3leon.evaluation.judge import SIZE, Judge, as_input, fit_network, new_network
from cm3leon.evaluation.objects.check import Box, Detected, Seen
from cm3leon.joined_tokenizers import Tokenizers

SMALL = 0.2
"""Share of the largest part's area below which a part belongs to the one next to it."""
FILLED = 0.85
"""Share of the network's picture that a thing fills."""


@dataclass(frozen=True)
class MeasuredDetector:
    """Detector of things on plain paper."""

    judge: Judge

    @property
    def description(self) -> dict[str, str]:
        """What stands behind the figures."""
        weights = hashlib.sha256()
        for weight in self.judge.network.state_dict().values():
            weights.update(weight.numpy().tobytes())
        return {
            "tool": "parts on plain paper, named by a network trained on the run's pictures",
            "weights_sha256": weights.hexdigest(),
        }

    def __call__(self, pixels: np.ndarray) -> list[Seen]:
        """Return what is in each of some pictures (N, H, W, 3) uint8."""
        papers = [colour_of_paper(picture) for picture in pixels]
        boxes = [things_in(picture) for picture in pixels]
        cut = [
            cut_out(picture, box, paper)
            for picture, found, paper in zip(pixels, boxes, papers, strict=True)
            for box in found
        ]
        names = iter(())
        if cut:
            best = self.judge.scores(np.stack(cut)).argmax(1)
            names = iter([self.judge.names[place] for place in best])
        return [
            Seen(
                things=tuple(
                    Detected(name=next(names), box=box, colour=colour_of_thing(picture, box, paper))
                    for box in found
                ),
                background=paper,
            )
            for picture, found, paper in zip(pixels, boxes, papers, strict=True)
        ]


def train_detector(pictures: Pictures, tokenizers: Tokenizers, seed: int) -> MeasuredDetector:
    """Train the network on every thing, cut out, of pictures that no figure asks for.

    It sees each as it is and through the image tokenizer, which blurs small things most.

    Args:
        pictures: All pairs, with facts; those of `train`, `validation` and `shown` are used.
        tokenizers: The image tokenizer is used.
        seed: Of weights, order and augmentation.
    """
    facts = pictures.pairs.facts
    rows = [row for row in pictures.pairs.rows("train", "validation", "shown") if facts[row]]
    pixels = pictures.pixels(np.array(rows))
    cut, names = [], []
    for seen in (pixels, tokenizers.through(pixels)):
        for picture, row in zip(seen, rows, strict=True):
            paper = colour_of_paper(picture)
            for thing in (facts[row] or {})["things"]:
                box = _inside(thing["box"], picture.shape[0])
                cut.append(cut_out(picture, box, paper))
                names.append(thing["name"])
    known, classes = np.unique(names, return_inverse=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = new_network(len(known))
        fit_network(network, as_input(np.stack(cut)), torch.from_numpy(classes))
    return MeasuredDetector(Judge(network=network.eval(), names=known.tolist()))


def kept_detector(
    path: Path, made_of: str, train: Callable[[], MeasuredDetector]
) -> MeasuredDetector:
    """Return the detector that a file keeps, or train it and keep it.

    Args:
        path: The file, of safetensors.
        made_of: What the detector depends on; a file of another, or a damaged one, is replaced.
        train: Makes it.
    """
    if path.is_file():
        with suppress(SafetensorError), safe_open(path, "pt") as file:
            said = file.metadata() or {}
            if said.get("made_of") == made_of:
                names = json.loads(said["names"])
                network = new_network(len(names))
                network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
                return MeasuredDetector(Judge(network=network.eval(), names=names))
    found = train()
    said = {"made_of": made_of, "names": json.dumps(found.judge.names)}
    weights = {name: one.contiguous() for name, one in found.judge.network.state_dict().items()}
    with atomic_file(path) as file:
        file.write(save(weights, said))
    return found


def _inside(box: Box, side: int) -> Box:
    """Return a box in whole pixels of a picture, a pixel wide at least."""
    x0, y0, x1, y1 = (min(side, max(0, round(at))) for at in box)
    x0, y0 = min(x0, side - 1), min(y0, side - 1)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def things_in(picture: np.ndarray) -> list[Box]:
    """Return boxes of the things in a picture (H, W, 3): parts that touch, small ones joined."""
    parts = parts_of(thing_mask(picture))
    if not parts:
        return []
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in parts]
    large = [place for place, area in enumerate(areas) if area >= SMALL * max(areas)]
    members = {place: [parts[place]] for place in large}
    for place, part in enumerate(parts):
        if place not in members:
            nearest = min(large, key=lambda other: _distance(part, parts[other]))
            members[nearest].append(part)
    return [around(found) for found in members.values()]


def cut_out(picture: np.ndarray, box: Box, paper: str) -> np.ndarray:
    """Return a part of a picture as a picture of its own (SIZE, SIZE, 3), on its paper."""
    x0, y0, x1, y1 = (int(at) for at in box)
    scale = FILLED * SIZE / max(x1 - x0, y1 - y0)
    width, height = (max(1, round(scale * side)) for side in (x1 - x0, y1 - y0))
    part = Image.fromarray(picture[y0:y1, x0:x1]).resize((width, height), Image.Resampling.BICUBIC)
    whole = np.full((SIZE, SIZE, 3), rgb(PAPERS[paper]), np.uint8)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    whole[top : top + height, left : left + width] = np.asarray(part)
    return whole


def _distance(one: Box, other: Box) -> float:
    """Return the gap between two boxes, 0 where they overlap."""
    gaps = (max(one[axis] - other[axis + 2], other[axis] - one[axis + 2], 0) for axis in (0, 1))
    return sum(gap**2 for gap in gaps) ** 0.5
