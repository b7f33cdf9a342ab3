"""What a discriminator does to the image tokenizer: figures, and both beside the real pictures.

    python apps/train_imagetok.py --config apps/configs/tiny-128.yaml --name tiny-128
    python apps/train_imagetok.py --config apps/configs/tiny-128.yaml --name tiny-128-plain \\
        --imagetok.gan_weight 0
    python benchmarks/discriminator.py --picture docs/images/discriminator.png --out FILE

All figures are of the test pictures, of concepts that training has not seen. Sharpness is the mean
absolute Laplacian over that of the real pictures: 1 is as sharp.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cm3_imagetok import load_vqgan, psnr, ssim, to_pixels, to_tensor
from cm3leon.job import start
from cm3leon.recipe_file import read_command
from cm3leon.sheets import write_sheet
from cm3leon.tokenizer_stages import make_pictures


def edges(images: Tensor) -> float:
    """Mean absolute Laplacian of (N, 3, H, W)."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(3, 1, 3, 3)
    return float(F.conv2d(images, kernel, groups=3).abs().mean())


def main() -> None:
    """Read both runs, print and write."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("--runs", type=Path, default=Path("runs"))
    command.add_argument("--names", nargs=2, default=["tiny-128-plain", "tiny-128"])
    command.add_argument("--config", default="apps/configs/tiny-128.yaml")
    command.add_argument("--picture", type=Path)
    command.add_argument("--out", type=Path)
    given = command.parse_args()

    options = ["--config", given.config, "--runs", str(given.runs), "--name", given.names[0]]
    recipe = read_command(None, Path(given.config), options)
    data = make_pictures(start(recipe))
    rows = data.pairs.rows("test")
    real = to_tensor(data.pixels(rows))
    figures, pictures = {}, []
    for name, what in zip(given.names, ("without", "with"), strict=True):
        model = load_vqgan(given.runs / name / "imagetok" / "vqgan")
        with torch.inference_mode():
            seen = torch.cat([model.decode(model.encode(part)) for part in real.split(32)])
        figures[what] = {
            "heldout_psnr_db": float(psnr(seen, real).mean()),
            "ssim": float(ssim(seen, real).mean()),
            "sharpness": edges(seen) / edges(real),
        }
        pictures.append(to_pixels(seen))
    result = {"pictures": len(rows), "pixels": recipe.data.size, **figures}
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")
    if given.picture:
        some = np.random.default_rng(1).choice(len(rows), 10, replace=False)
        lines = [
            (
                data.pairs.captions[rows[i]],
                [to_pixels(real[i : i + 1])[0], *(p[i] for p in pictures)],
            )
            for i in some
        ]
        write_sheet(given.picture, lines, [["real", "without", "with discriminator"]])


if __name__ == "__main__":
    main()
