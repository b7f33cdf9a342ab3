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
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt

sys.path.insert(0, str(Path(__file__).parents[1] / "apps"))

import figures
from pipeline import Run
from pretrain import open_run

from cm3_retrieval import train_clip
from cm3_retrieval.interface import Encoder


def another_clip(run: Run, folder: Path) -> Encoder:
    """A CLIP like the run's own, of another seed."""
    recipe = run.recipe.retrieval.clip
    rows = run.pairs.rows("train")
    pixels = run.pixels_of(rows)
    rows = np.tile(rows, 2)
    return train_clip(
        [run.pairs.captions[row] for row in rows],
        np.concatenate([pixels, run.through_tokenizer(pixels)]),
        replace(recipe, seed=recipe.seed + 1),
        groups=run.group_numbers[rows].tolist(),
        folder=folder,
    )


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

    run = open_run(given.run)
    recipe = run.recipe
    scale = json.loads((given.run / "report.json").read_text())["samples"]["guidance_scale"]
    gallery = figures.one_a_concept(run, "train", "validation", "test")
    categories = np.array(run.pairs.categories, dtype=object)
    with tempfile.TemporaryDirectory() as folder:
        another = another_clip(run, Path(folder))
    judges = {"own": run.encoder, "another": another}
    real = {
        judge: figures.vectors_of(encoder, run.pixels_of(gallery))
        for judge, encoder in judges.items()
    }

    known = np.flatnonzero(run.pairs.split[gallery] == "train")
    rng = np.random.default_rng(recipe.seed)
    places = rng.choice(known, min(given.prompts, len(known)), replace=False)
    prompts = {
        "train_top10": gallery[places],
        "category_match": np.resize(figures.one_a_concept(run, "test"), given.prompts),
    }
    counts = [2**n for n in range(given.candidates.bit_length())]
    mixtures = {"top-p": (1, 0), "CD-K": (0, 1), "half of each": (1, 1)}
    result = {
        mixture: {judge: {name: [] for name in prompts} for judge in judges} for mixture in mixtures
    }
    for name, rows in prompts.items():
        drawn: list[figures.Drawings] = []
        for sampler in ("top-p", "cd-k"):
            run.recipe = replace(recipe, evaluation=replace(recipe.evaluation, samplers=(sampler,)))
            drawn.append(figures.draw_for(run, rows, scale, 30_000, name, given.candidates))
        scores = np.stack([d.scores for d in drawn], 1)  # (N, sampler, candidate)
        seen = {
            "own": np.stack([d.vectors for d in drawn], 1),
            "another": np.stack([figures.vectors_of(another, d.pixels) for d in drawn], 1),
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
                        hits = np.diag(figures.among_nearest(similarity, places, 10))
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
