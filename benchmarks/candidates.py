"""What more candidates, re-ranked by CLIP, give the drawings of a finished run (paper 3.1).

    python apps/pretrain.py
    python benchmarks/candidates.py --run runs/tiny --picture candidates.png --out FILE

Draws ``--candidates`` pictures by top-p and as many by CD-K for each prompt, and takes the best of
1, 2, 4, ... of top-p alone, of CD-K alone, and of half of each. The figures are those of the run's
report: ``train_top10`` and ``category_match``. The run's CLIP orders the candidates. It judges the
best one too, which flatters it; so a CLIP of another seed, trained here, judges as well
(``another``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt

from cm3_retrieval import ClipEncoder, ClipTrainingConfig
from cm3_retrieval.interface import Encoder
from cm3leon.drawing.draw import Drawings
from cm3leon.evaluation.samples import among_nearest, draw_for
from cm3leon.evaluation.subject import Subject, open_subject
from cm3leon.recipe_file import read_recipe
from cm3leon.training.encoder import train_encoder


def another_clip(run: Subject, recipe: ClipTrainingConfig, folder: Path) -> Encoder:
    """A CLIP like the run's own, of another seed."""
    other = replace(recipe, seed=recipe.seed + 1)
    train_encoder(other, run.pictures, run.parts.tokenizers, folder)
    return ClipEncoder.from_folder(folder)


def vectors_of(encoder: Encoder, pixels: np.ndarray) -> np.ndarray:
    """CLIP vectors (N, C, dim) of pixels (N, C, H, W, 3)."""
    vectors = encoder.encode_images(list(pixels.reshape(-1, *pixels.shape[2:])))
    return vectors.reshape(*pixels.shape[:2], -1)


def plot(path: Path, result: dict[str, dict[str, dict[str, list[float]]]], counts: list[int]):
    """Both figures by the number of candidates."""
    panels, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
    colours = dict(zip(result, ("tab:blue", "tab:orange", "tab:green"), strict=True))
    for axis, name in zip(axes, ("train_top10", "category_match"), strict=True):
        for mixture, judges in result.items():
            for judge, style in (("own", "-"), ("another", "--")):
                some = counts[-len(judges[judge][name]) :]
                label = f"{mixture}{', another judge' if style == '--' else ''}"
                axis.plot(
                    some,
                    judges[judge][name],
                    style,
                    color=colours[mixture],
                    marker="o",
                    label=label,
                )
        axis.set(xscale="log", xlabel="candidates", ylabel=name, xticks=counts)
        axis.set_xticklabels(counts)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    panels.tight_layout()
    panels.savefig(path, dpi=110)


def main() -> None:
    """Draw, judge, print and write."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("--run", type=Path, default=Path("runs/tiny"))
    command.add_argument("--prompts", type=int, default=100, help="of each kind")
    command.add_argument("--candidates", type=int, default=16, help="of each sampler")
    command.add_argument("--picture", type=Path, help="PNG of the curves")
    command.add_argument("--out", type=Path)
    given = command.parse_args()

    run, recipe = open_subject(given.run), read_recipe(given.run)
    pairs = run.pictures.pairs
    scale = json.loads((given.run / "report.json").read_text())["samples"]["guidance_scale"]
    gallery = run.one_a_concept("train", "validation", "test")
    categories = np.array(pairs.categories, dtype=object)
    with tempfile.TemporaryDirectory() as folder:
        another = another_clip(run, recipe.retrieval.clip, Path(folder))
    judges = {"own": run.parts.encoder, "another": another}
    real = {
        judge: encoder.encode_images(list(run.pictures.pixels(gallery)))
        for judge, encoder in judges.items()
    }

    known = np.flatnonzero(pairs.split[gallery] == "train")
    rng = np.random.default_rng(recipe.seed)
    places = rng.choice(known, min(given.prompts, len(known)), replace=False)
    prompts = {
        "train_top10": gallery[places],
        "category_match": np.resize(run.one_a_concept("test"), given.prompts),
    }
    counts = [2**n for n in range(given.candidates.bit_length())]
    mixtures = {"top-p": (1, 0), "CD-K": (0, 1), "half of each": (1, 1)}
    result = {
        mixture: {judge: {name: [] for name in prompts} for judge in judges} for mixture in mixtures
    }
    for name, rows in prompts.items():
        drawn: list[Drawings] = []
        for sampler in ("top-p", "cd-k"):
            one = replace(run, recipe=replace(run.recipe, samplers=(sampler,)))
            drawn.append(draw_for(one, rows, scale, 30_000, name, given.candidates))
        scores = np.stack([d.scores for d in drawn], 1)  # (N, sampler, candidate)
        seen = {
            "own": np.stack([d.vectors for d in drawn], 1),
            "another": np.stack([vectors_of(another, d.pixels) for d in drawn], 1),
        }
        for mixture, (plain, contrast) in mixtures.items():
            for count in counts:
                if count < plain + contrast:
                    continue
                each = count // (plain + contrast)
                mine = np.full_like(scores, -np.inf)
                for place, turns in enumerate((plain, contrast)):
                    mine[:, place, : turns * each] = scores[:, place, : turns * each]
                best = np.unravel_index(mine.reshape(len(rows), -1).argmax(1), mine.shape[1:])
                for judge in judges:
                    vectors = seen[judge][np.arange(len(rows)), *best]
                    similarity = vectors @ real[judge].T
                    if name == "train_top10":
                        hits = np.diag(among_nearest(similarity, places, 10))
                    else:
                        hits = categories[gallery[similarity.argmax(1)]] == categories[rows]
                    result[mixture][judge][name].append(float(hits.mean()))
    table = {"prompts": given.prompts, "counts": counts, "guidance_scale": scale, **result}
    print(json.dumps(table, indent=2))
    if given.out:
        given.out.write_text(json.dumps(table, indent=2) + "\n")
    if given.picture:
        plot(given.picture, result, counts)


if __name__ == "__main__":
    main()
