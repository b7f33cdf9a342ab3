"""A detector for real pictures: any detection model that transformers has saved, from a folder.

GenEval's own figures are of Mask2Former and of CLIP ViT-L/14 for colours; `description` says what
these are of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cm3_retrieval.interface import Encoder
from cm3_train.artifact import sha256_of_file
from cm3leon.evaluation.objects.check import SURE, Box, Detected, Seen
from cm3leon.evaluation.tasks.interface import Missing

COLOURS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
)  # fmt: skip
"""GenEval's."""
GENEVALS = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}
"""What GenEval calls things that COCO calls otherwise."""
BATCH = 8


class LearnedDetector:
    """Detector with learnt weights; a thing has the colour whose words CLIP finds nearest to it.

    Args:
        folder: As `save_pretrained` of transformers writes it, with weights as safetensors.
        encoder: A CLIP; None: colours are not told.
        device: Where the detector runs.

    Raises:
        Missing: transformers is not installed, or the folder has no such model.
    """

    def __init__(self, folder: Path, encoder: Encoder | None, device: torch.device) -> None:
        """Load the model; nothing is fetched, and no code of the folder is run."""
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise Missing(
                f"objects: {folder}: wanted the folder of a detection model with config.json, "
                "preprocessor_config.json and model.safetensors, got no model.safetensors"
            )
        try:
            from transformers import AutoImageProcessor, AutoModelForObjectDetection
        except ImportError:
            raise Missing(
                "objects: wanted transformers for the detector: pip install 'cm3leon[features]'"
            ) from None
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.processor = AutoImageProcessor.from_pretrained(str(folder), **options)
            model = AutoModelForObjectDetection.from_pretrained(
                str(folder), use_safetensors=True, **options
            )
        except (OSError, ValueError) as error:
            raise Missing(f"objects: {folder}: wanted a detection model ({error})") from None
        self.model = model.to(device).eval()
        self.device, self.encoder = device, encoder
        config = json.loads((folder / "config.json").read_text("utf-8"))
        self.description = {
            "tool": "transformers " + str(config.get("architectures")),
            "weights_sha256": sha256_of_file(weights),
            "colours": "" if encoder is None else encoder.encoder_id,
        }

    def __call__(self, pixels: np.ndarray) -> list[Seen]:
        """Return what is in each of some pictures (N, H, W, 3) uint8, at any score above `SURE`."""
        found: list[Seen] = []
        for start in range(0, len(pixels), BATCH):
            part = pixels[start : start + BATCH]
            given = self.processor(images=list(part), return_tensors="pt").to(self.device)
            with torch.inference_mode():
                outputs = self.model(**given)
            sizes = [picture.shape[:2] for picture in part]
            boxes = self.processor.post_process_object_detection(
                outputs, threshold=SURE, target_sizes=sizes
            )
            found += [self._seen(*pair) for pair in zip(part, boxes, strict=True)]
        return found

    def _seen(self, picture: np.ndarray, boxes: dict[str, torch.Tensor]) -> Seen:
        labels = [str(self.model.config.id2label[int(label)]) for label in boxes["labels"]]
        names = [GENEVALS.get(label, label) for label in labels]
        places = [_inside(tuple(box.tolist()), picture) for box in boxes["boxes"]]
        colours = self._colours(picture, names, places)
        return Seen(
            things=tuple(
                Detected(name=name, box=box, score=float(score), colour=colour)
                for name, box, score, colour in zip(
                    names, places, boxes["scores"], colours, strict=True
                )
            )
        )

    def _colours(
        self, picture: np.ndarray, names: list[str], places: list[Box]
    ) -> Sequence[str | None]:
        """Return the colour of each thing, by its part of the picture."""
        if not names or self.encoder is None:
            return [None] * len(names)
        cut = [
            picture[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
            for x0, y0, x1, y1 in places
        ]
        vectors = self.encoder.encode_images(cut)
        found = []
        for vector, name in zip(vectors, names, strict=True):
            texts = self.encoder.encode_texts([f"a photo of a {one} {name}" for one in COLOURS])
            found.append(COLOURS[int(texts.dot(vector).argmax())])
        return found


@lru_cache(maxsize=1)
def open_detector(folder: Path, encoder: Encoder | None, device: torch.device) -> LearnedDetector:
    """Return the detector of a folder, opened once however often it is asked for."""
    return LearnedDetector(folder, encoder, device)


def _inside(box: Any, picture: np.ndarray) -> Box:
    """Return a box cut to its picture, a pixel wide at least."""
    height, width = picture.shape[:2]
    x0, y0 = min(max(box[0], 0), width - 1), min(max(box[1], 0), height - 1)
    return x0, y0, max(min(box[2], width), x0 + 1), max(min(box[3], height), y0 + 1)
