"""Real pictures through the image tokenizer: what drawing could reach at best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cm3leon.evaluation.measures.reconstruction import Lpips, psnr, ssim
from cm3leon.evaluation.tasks.captioned import Captioned, RealPictures, captioned, said_data
from cm3leon.evaluation.tasks.interface import Examined, Outputs, Scores
from cm3leon.evaluation.tasks.likeness import BATCH, likeness

HOW = {
    "psnr_db": "Mean over pictures of 10 log10(255^2 / mean squared error), 100 at most, in dB.",
    "ssim": "Mean structural similarity (doi:10.1109/TIP.2003.819861), 1 for a copy.",
    "lpips": "Mean LPIPS by VGG16 (arXiv 1801.03924), 0 for a copy.",
    "codes_used": "Share of all codes that these pictures use.",
}
EXACT = 100.0
"""What a copy counts in dB, whose own figure is infinite."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Encodes and decodes held-out pictures."""

    split: str = "test"
    folder: Path | None = None
    """Pictures with a `metadata.jsonl` in place of the run's own."""
    number: int = 1000
    """Most pictures."""
    inception: Path | None = None
    """torch-fidelity's weights of Inception-v3, for rFID; null: features of the run's CLIP."""
    vgg16: Path | None = None
    """torchvision's weights of VGG16, for LPIPS."""
    lpips: Path | None = None
    """The lpips package's weights of its linear layers for VGG."""

    def records(self, examined: Examined) -> list[Captioned]:
        """Return pictures."""
        return captioned(examined, "reconstruction", self.split, self.number, self.folder)

    def data(self, examined: Examined, records: Sequence[Captioned]) -> str:
        """Return keys or file names."""
        return said_data(records)

    def make(self, examined: Examined, records: Sequence[Captioned], first: int) -> Outputs:
        """Encode and decode."""
        codes = examined.parts.tokenizers.encode(RealPictures(examined, records)[:])
        return {"rebuilt": examined.parts.tokenizers.decode(codes), "codes": codes}

    def score(
        self, examined: Examined, records: Sequence[Captioned], outputs: dict[str, Any]
    ) -> Scores:
        """Compare with the real pictures."""
        real, rebuilt = RealPictures(examined, records), outputs["rebuilt"]
        tools: dict[str, Any] = {}
        without: list[str] = []
        measures: dict[str, Any] = {"psnr_db": psnr, "ssim": ssim}
        try:
            if self.vgg16 is None or self.lpips is None:
                raise ValueError(
                    "wanted torchvision's vgg16-397923af.pth as `vgg16` and the lpips package's "
                    "weights/v0.1/vgg.pth as `lpips`"
                )
            measures["lpips"] = Lpips(self.vgg16, self.lpips)
            tools["lpips"] = measures["lpips"].description
        except ValueError as error:
            without.append(f"LPIPS: {error}")
        found: dict[str, list[np.ndarray]] = {name: [] for name in measures}
        for start in range(0, len(records), BATCH):
            pair = rebuilt[start : start + BATCH], real[start : start + BATCH]
            for name, measure in measures.items():
                found[name].append(measure(*pair))
        values = {name: np.concatenate(parts) for name, parts in found.items()}
        values["psnr_db"] = np.minimum(values["psnr_db"], EXACT)
        alike = likeness(rebuilt, real, examined.encoder, self.inception, examined.seed)
        used = len(np.unique(outputs["codes"])) / examined.parts.tokenizers.image.num_codes
        shown = zip(real[:8], rebuilt[:8], strict=True)
        return Scores(
            figures={name: float(one.mean()) for name, one in values.items()}
            | {f"r{name}": value for name, value in alike.figures.items()}
            | {"codes_used": used},
            how=HOW | {f"r{name}": how for name, how in alike.how.items()},
            values=values,
            tools=tools | alike.tools,
            without=[*without, *alike.without],
            sheet=(
                [("", list(pair)) for pair in shown],
                ["real", "rebuilt"],
            ),
        )
