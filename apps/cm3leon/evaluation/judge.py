"""A judge of drawn pictures that neither drew nor chose them.

A small network names the thing. It sees each training picture of one thing as it is and through the
image tokenizer, its colour channels mixed at random, so that shape alone decides. Colour and
background need no network: they are measured (`cm3leon.data.palette`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cm3_train import progress_bar
from cm3leon.data.palette import colour_of_paper, colour_of_thing
from cm3leon.data.pixels import Pictures
from cm3leon.joined_tokenizers import BATCH, Tokenizers

SIZE = 64
"""Side in pixels that the network sees."""
STEPS = 400
MOST_PASSES = 20
"""Over the pictures: a few pictures take fewer steps."""
BATCH_SIZE = 128
LEARNING_RATE = 3e-3
MAX_SHIFT = 6
"""Pixels that a training picture is moved by, at most."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What a picture of one thing shows."""

    network: nn.Module
    names: list[str]
    """Of the things, by their class."""

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Return the score of every thing (N, K) for pixels (N, H, W, 3) uint8."""
        with torch.inference_mode():
            parts = [
                self.network(as_input(pixels[start : start + BATCH]))
                for start in range(0, len(pixels), BATCH)
            ]
        return torch.cat(parts).numpy()

    def rank(self, pixels: np.ndarray, things: list[str]) -> np.ndarray:
        """Return the place (N,) of each picture's wanted thing among all: 0 is the first."""
        scores, place = self.scores(pixels), {name: i for i, name in enumerate(self.names)}
        wanted = scores[np.arange(len(things)), [place[name] for name in things]]
        return (scores > wanted[:, None]).sum(1)


def colours_of(pixels: np.ndarray) -> tuple[list[str], list[str]]:
    """Measure the colour of the thing and of the background in pixels (N, H, W, 3) uint8."""
    papers = [colour_of_paper(picture) for picture in pixels]
    whole = 0, 0, pixels.shape[2], pixels.shape[1]
    colours = [
        colour_of_thing(picture, whole, paper)
        for picture, paper in zip(pixels, papers, strict=True)
    ]
    return colours, papers


def alone(pictures: Pictures, *splits: str) -> np.ndarray:
    """Return the rows of pictures of one thing alone, in the given splits."""
    facts = pictures.pairs.facts
    rows = pictures.pairs.rows(*splits)
    return np.array(
        [row for row in rows if (facts[row] or {}).get("kind") == "one"], dtype=np.int64
    )


def thing_of(pictures: Pictures, row: int) -> str:
    """Return the name of the first thing of a picture with facts."""
    facts = pictures.pairs.facts[row]
    assert facts is not None  # the caller chose rows with facts
    return facts["things"][0]["name"]


def train_judge(pictures: Pictures, tokenizers: Tokenizers, seed: int) -> Judge:
    """Train on every picture of one thing that no figure asks for.

    Args:
        pictures: All pairs, with facts; those of `train`, `validation` and `shown` are used.
        tokenizers: The image tokenizer is used.
        seed: Of weights, order and augmentation.
    """
    rows = alone(pictures, "train", "validation", "shown")
    pixels = pictures.pixels(rows)
    seen = np.concatenate([pixels, tokenizers.through(pixels)])
    things = [thing_of(pictures, row) for row in rows]
    names, classes = np.unique(things, return_inverse=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = new_network(len(names))
        fit_network(network, as_input(seen), torch.from_numpy(np.tile(classes, 2)))
    return Judge(network=network.eval(), names=names.tolist())


def new_network(num_classes: int) -> nn.Sequential:
    """Return a convolutional network over (N, 3, 64, 64)."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128), (128, 256)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(256 * 16, num_classes))


def fit_network(network: nn.Module, images: Tensor, classes: Tensor) -> None:
    """Train on images (N, 3, 64, 64) and classes (N,); draws from torch's generator.

    Raises:
        FloatingPointError: The weights are NaN or infinite; such a judge would rank every picture's
            thing first.
    """
    steps = min(STEPS, math.ceil(MOST_PASSES * len(images) / BATCH_SIZE))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, steps, cycle_momentum=False
    )
    network.train().to(memory_format=torch.channels_last)  # pyright: ignore
    queue = torch.empty(0, dtype=torch.long)
    with progress_bar("judge") as progress:
        for step in range(steps):
            if len(queue) < BATCH_SIZE:
                queue = torch.randperm(len(images))
            rows, queue = queue[:BATCH_SIZE], queue[BATCH_SIZE:]
            loss = F.cross_entropy(network(augmented(images[rows])), classes[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress(step + 1, steps)
    if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
        raise FloatingPointError("judge: wanted finite weights, got NaN or infinity")


def augmented(images: Tensor) -> Tensor:
    """Mix the channels of a batch, move it, and mirror half of it."""
    mixed = images[:, torch.randperm(3)]
    padded = F.pad(mixed, (MAX_SHIFT,) * 4, mode="replicate")
    dy, dx = torch.randint(0, 2 * MAX_SHIFT + 1, (2,)).tolist()
    moved = padded[:, :, dy : dy + SIZE, dx : dx + SIZE]
    flip = torch.rand(len(images)) < 0.5
    return torch.where(flip[:, None, None, None], moved.flip(-1), moved)


def as_input(pixels: np.ndarray) -> Tensor:
    """Return (N, 3, 64, 64) in [-1, 1] of pixels (N, H, W, 3) uint8."""
    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    if images.shape[-1] != SIZE:
        images = F.interpolate(images, (SIZE, SIZE), mode="area")
    return images.contiguous(memory_format=torch.channels_last)
