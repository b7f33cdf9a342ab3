"""apps/prepare.py: pictures a second and core, two Ray workers beside one, memory at two sizes.

    python benchmarks/prepare.py --out benchmarks/results/prepare.json

Makes img2dataset's tars of random JPEGs, and tokenizers and a CLIP of the default recipe's shapes
that have seen two steps of training (speed does not depend on what they have learnt, the strategy's
caps aside); `--parts` takes those of a finished run. Each preparation is a process of its own. With
`--smaller`, `--larger` and `--ray-pictures` it takes other sizes than 10,000, 100,000 and 50,000.
Opening the models counts: with few pictures, two workers are little faster than one.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timing import machine_facts, report

ROOT = Path(__file__).parents[1]
A_TAR = 1000
WORDS = ("red", "green", "old", "small", "dog", "house", "tree", "boat", "near", "water", "night")
FEW_STEPS = [
    "--imagetok.optim.total_steps=2", "--imagetok.optim.warmup_steps=1", "--imagetok.val_every=2",
    "--retrieval.clip.steps=2", "--retrieval.clip.warmup=1",
]  # fmt: skip
NO_CAPS = [
    f"--retrieval.strategy.{name}=1"
    for name in ("max_relevance", "duplicate_threshold", "max_likeness")
]
"""To a CLIP that has learnt nothing all pairs are alike: under the strategy's caps each search
would go through the whole bank for one that is not."""


def write_tars(folder: Path, count: int, side: int) -> None:
    """Random pictures of blobs, JPEGs of about `side` pixels, each with words of its own."""
    for start in range(0, count, A_TAR):
        path = folder / f"{start // A_TAR:05}.tar"
        if path.is_file():
            continue
        rng, aside = np.random.default_rng(start), path.with_suffix(".partial")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(aside, "w") as archive:
            for number in range(start, min(start + A_TAR, count)):
                blobs = rng.integers(0, 255, (9, 9, 3), np.uint8)
                size = (side, int(side * rng.uniform(0.6, 1.4)))
                file = io.BytesIO()
                Image.fromarray(blobs).resize(size).save(file, "jpeg", quality=90)
                caption = f"{' '.join(rng.choice(WORDS, 8))} {number}"
                facts = json.dumps({"licence": "CC0", "url": f"https://a.org/{number}"})
                for kind, content in (
                    ("jpg", file.getvalue()), ("txt", caption.encode()), ("json", facts.encode())
                ):  # fmt: skip
                    info = tarfile.TarInfo(f"{number:09}.{kind}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        aside.rename(path)


def app(name: str, *arguments: Any) -> None:
    """Run an app; its output is shown if it fails."""
    command = [sys.executable, str(ROOT / "apps" / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def make_parts(work: Path, tars: Path) -> Path:
    """A run of the default recipe's shapes, as far as its CLIP."""
    from cm3leon.job import start
    from cm3leon.recipe_file import read_command, save_recipe
    from cm3leon.run import make_encoder
    from cm3leon.tokenizer_stages import make_tokenizers

    sample = work / "sample"
    if not (sample / "metadata.jsonl").is_file():
        app("prepare.py", "--source", tars, "--folder", sample, "--sample", 1000)
    arguments = [
        "--runs",
        str(work),
        "--name=parts",
        "--data.folder",
        str(sample),
        *FEW_STEPS,
        *NO_CAPS,
    ]
    recipe = read_command(None, ROOT / "apps/configs/tiny.yaml", [*arguments, "--decoder.views=1"])
    job = start(recipe)
    save_recipe(recipe, recipe.folder)
    tokenizers, pictures = make_tokenizers(job)
    make_encoder(job, pictures, tokenizers)
    return recipe.folder


def prepared(work: Path, tars: Path, parts: Path, workers: int, engine: str) -> dict[str, Any]:
    """Prepare once from nothing; give what `speed.json` says."""
    folder = work / "prepared"
    shutil.rmtree(folder, ignore_errors=True)
    app("prepare.py", "--source", tars, "--folder", folder, "--parts", parts,
        "--workers", workers, "--engine", engine, "--device", "cpu")  # fmt: skip
    found = json.loads((folder / "speed.json").read_text())
    shutil.rmtree(folder)
    return found


def figures(found: dict[str, Any]) -> dict[str, float]:
    """Figures of one preparation."""
    seconds, cores = sum(found["seconds"].values()), found["workers"]
    passes = found["seconds"]["encode"] + found["seconds"]["finish"]
    peaks = {name: found[name] / 2**20 for name in found if name.endswith("_peak_bytes")}
    return {
        "pictures": found["records"],
        "seconds": seconds,
        **{f"{name}_seconds": value for name, value in found["seconds"].items()},
        "pictures_per_second_core": found["records"] / seconds / cores,
        "encode_pictures_per_second_core": found["records"] / found["encode_worker_seconds"],
        "passes_seconds": passes,
        "models_share": found["models_share"],
        **{name.replace("_bytes", "_mib"): value for name, value in peaks.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help="keeps pictures and parts for the next time")
    parser.add_argument("--parts", type=Path, help="a run whose tokenizers and encoder are taken")
    parser.add_argument("--smaller", type=int, default=10_000)
    parser.add_argument("--larger", type=int, default=100_000)
    parser.add_argument("--ray-pictures", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3, help="of one and of two Ray workers")
    parser.add_argument("--side", type=int, default=256, help="pixels of a raw picture")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        sizes = {name: getattr(options, name) for name in ("smaller", "larger", "ray_pictures")}
        tars = {name: work / f"tars-{count}-{options.side}" for name, count in sizes.items()}
        for name, count in sizes.items():
            write_tars(tars[name], count, options.side)
        parts = options.parts or make_parts(work, tars["smaller"])
        table: dict[str, Any] = {**machine_facts(1), "workers": options.workers}
        for name in ("smaller", "larger"):
            table[name] = figures(prepared(work, tars[name], parts, options.workers, "local"))
        ray: dict[int, list[float]] = {1: [], 2: []}
        for number in range(options.rounds):
            for workers in (1, 2) if number % 2 else (2, 1):
                found = prepared(work, tars["ray_pictures"], parts, workers, "ray")
                ray[workers].append(figures(found)["passes_seconds"])
        one, two = (statistics.median(ray[workers]) for workers in (1, 2))
        table |= {
            "pictures_per_second_core": table["larger"]["pictures_per_second_core"],
            "ray_one_seconds": one,
            "ray_two_seconds": two,
            "ray_two_over_one": one / two,
            "peak_growth": {
                name: table["larger"][name] / table["smaller"][name]
                for name in table["larger"]
                if name.endswith("_mib")
            },
        }
    report(table, options.out)


if __name__ == "__main__":
    main()
