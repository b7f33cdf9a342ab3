"""Decoders of several sizes on equal tokens: is the larger one better (the paper's figure 3)?

    uv run python apps/pretrain.py
    uv run python benchmarks/sizes.py --run runs/tiny --out FILE --picture PNG

Each size trains on the same sequences in the same order, with the run's own recipe but for
`decoder.model` and the steps. A training that was stopped goes on. Figures are those of the
validation split, whose combinations of thing and colour are nowhere in training: perplexity over
all tokens of the query pair, and bits per image code. Left: over steps, as the paper draws them.
Right: the last ones over the number of weights.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import machine_facts, report

from cm3_model import num_parameters
from cm3_train import read_history
from cm3leon import parts
from cm3leon.data.captions import without_long_captions
from cm3leon.data.memory import open_neighbours
from cm3leon.data.pairs import read_pairs
from cm3leon.data.pixels import open_pictures
from cm3leon.device import device_of, precision_on
from cm3leon.recipe import Recipe
from cm3leon.recipe_file import read_recipe
from cm3leon.training.decoder import new_decoder, train_decoder

SIZES = {
    "small": {"num_layers": 2, "width": 64, "num_heads": 2},
    "middle": {"num_layers": 3, "width": 128, "num_heads": 2},
    "large": {"num_layers": 3, "width": 256, "num_heads": 4},
}


def train(recipe: Recipe, size: str, steps: int, seed: int, folder: Path) -> int:
    """Train one size; returns its number of weights."""
    device = device_of(recipe.device)
    text = parts.open_text_tokenizer(recipe)
    image = parts.open_image_tokenizer(recipe, device)
    tokenizers = parts.join_tokenizers(text, image, recipe, device)
    memory = parts.open_memory(recipe, parts.open_encoder(recipe, device), tokenizers.vocabulary)
    source = recipe.data.folder or recipe.folder / "data"
    pairs = read_pairs(source, **recipe.data.shares, seed=recipe.seed)
    pictures = open_pictures(source, pairs, recipe.folder / "pictures")
    pictures = without_long_captions(pictures, recipe.folder / "captions")[0]

    def keys(split: str) -> np.ndarray:
        return pictures.pairs.keys[pictures.pairs.rows(split)]

    assert isinstance(recipe.decoder.model, dict)  # the shape of the default recipe
    decoder = replace(
        recipe.decoder,
        model=recipe.decoder.model | SIZES[size],
        optim=replace(recipe.decoder.optim, total_steps=steps),
        val_every=max(1, steps // 8),
    )
    if not (folder / "model").is_dir():
        train_decoder(
            decoder,
            tokenizers,
            memory.documents,
            keys("train"),
            keys("validation"),
            open_neighbours(recipe.folder / "retrieval"),
            folder,
            retrieve=recipe.evaluation.retrieve,
            seed=seed,
            device=device,
            precision=precision_on(device, recipe.precision),
            checkpoint_every=recipe.checkpoint_every,
        )
    return num_parameters(new_decoder(decoder, tokenizers, seed).config)


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    """Return (step, figure), steps counted from 1."""
    return [(step + 1, row[name]) for step, row in read_history(folder).items() if name in row]


def draw(sizes: dict[str, dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for found in sizes.values():
        label = f"{found['parameters'] / 1e6:.2f}M"
        left.plot(*zip(*found["perplexity"], strict=True), "o-", label=label)
    left.set(xlabel="step", ylabel="validation perplexity", yscale="log")
    left.legend()
    right.plot(
        [found["parameters"] for found in sizes.values()],
        [found["val_bits_per_code"] for found in sizes.values()],
        "o-",
    )
    right.set(xlabel="weights", ylabel="validation bits per image code", xscale="log")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, default=Path("runs/tiny"), help="with its token shards")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = read_recipe(options.run)
    sizes: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        folder = options.run / f"size-{size}-{options.steps}-{options.seed}"
        parameters = train(recipe, size, options.steps, options.seed, folder)
        losses = curve(folder, "val/loss")
        sizes[size] = {
            "parameters": parameters,
            "perplexity": [(step, math.exp(loss)) for step, loss in losses],
            "val_perplexity": math.exp(losses[-1][1]),
            "val_bits_per_code": curve(folder, "val/bits_per_code")[-1][1],
        }
    if options.picture:
        draw(sizes, options.picture)
    facts = {**machine_facts(options.threads), "steps": options.steps, "seed": options.seed}
    report({**sizes, **facts}, options.out)


if __name__ == "__main__":
    main()
