"""CLIP as an encoder of texts and pictures.

Takes texts and pictures; gives L2-normalised float32 vectors. Paper 2.1 (arXiv 2309.02591) uses a
frozen CLIP ViT-B-32.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP
from open_clip.transform import PreprocessCfg
from open_clip.utils import to_2tuple
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from cm3_retrieval.clip.open_clip_models import (
    Tokenizer,
    bundled_tokenizer,
    open_model,
    open_tokenizer,
    picture_transform,
    weights_hash,
)
from cm3_retrieval.clip.pictures import as_rgb
from cm3_retrieval.interface import ENCODER_COMPONENT
from cm3_retrieval.picture_file import shown
from cm3_retrieval.sealed_folder import open_folder
from cm3_retrieval.utf8_path import utf8_path

CONFIG_NAME = "clip_config.json"
WEIGHTS_NAME = "clip.safetensors"

_MAX_CHARACTERS = 8192
"""Longer texts are cut before tokenising: no CLIP reads more than a few hundred tokens, and its BPE
takes time quadratic in the length of a word."""

Progress = Callable[[int, int], None]
"""Called with (done, total) after each batch."""


class ClipEncoder:
    """An open_clip model behind the `Encoder` Protocol."""

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        pretrained: str | Path | None = None,
        *,
        device: str | torch.device = "cpu",
        batch_size: int = 64,
        amp: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Open a model that open_clip knows by name.

        Args:
            model_name: One of `open_clip.list_models()`, or `local-dir:PATH` or `hf-hub:NAME`, a
                folder with its own weights. OpenAI's weights need a name that ends in
                `-quickgelu`, such as `ViT-B-32-quickgelu`.
            pretrained: A tag such as `openai` (downloaded once), a local file, or None: random
                weights from a fixed seed, or the folder's own.
            device: Where the model runs.
            batch_size: Texts or pictures in one forward pass.
            amp: Compute in bfloat16 where torch's autocast does. The vectors differ a little, and
                so does `encoder_id`.
            progress: Called with (done, total) after each batch.

        Raises:
            ValueError: Unknown name or tag, or weights trained with another activation function.
            RuntimeError: The download or the file failed.
        """
        model = open_model(model_name, pretrained)
        visual: Any = model.visual
        preprocess = dict(visual.preprocess_cfg)
        tokenizer = open_tokenizer(model_name)
        self._set(model_name, model, tokenizer, preprocess, device, batch_size, amp, progress)

    @classmethod
    def from_model(
        cls,
        name: str,
        model: CLIP,
        *,
        device: str | torch.device = "cpu",
        batch_size: int = 64,
        amp: bool = False,
        progress: Progress | None = None,
    ) -> "ClipEncoder":
        """Wrap a CLIP that reads square pictures and open_clip's bundled BPE.

        Args:
            name: The first half of `encoder_id`.
            model: A model from open_clip's `CLIP` constructor.
            device: Where the model runs.
            batch_size: Texts or pictures in one forward pass.
            amp: Compute in bfloat16 where torch's autocast does.
            progress: Called with (done, total) after each batch.
        """
        encoder = cls.__new__(cls)
        visual: Any = model.visual
        size: Any = to_2tuple(visual.image_size)
        preprocess = asdict(PreprocessCfg(size=size, resize_mode="squash"))
        tokenizer = bundled_tokenizer(model.context_length)
        encoder._set(name, model, tokenizer, preprocess, device, batch_size, amp, progress)
        return encoder

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: str | torch.device = "cpu",
        batch_size: int = 64,
        amp: bool = False,
        progress: Progress | None = None,
    ) -> "ClipEncoder":
        """Open a CLIP that `train_clip` wrote, after checking its hashes.

        Args:
            folder: The folder that `train_clip` wrote.
            device: Where the model runs.
            batch_size: Texts or pictures in one forward pass.
            amp: Compute in bfloat16 where torch's autocast does.
            progress: Called with (done, total) after each batch.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: Changed bytes, another component or major version, or weights that are NaN
                or infinite.
        """

        def read(
            manifest: dict[str, Any], paths: dict[str, Path]
        ) -> tuple[dict[str, Any], dict[str, Tensor]]:
            path = paths[WEIGHTS_NAME]
            with utf8_path(path) as name:
                weights = load_file(name)
            for name, tensor in weights.items():
                if not tensor.isfinite().all():
                    raise ValueError(
                        f"{shown(path)}: {name}: wanted finite numbers, got NaN or infinity"
                    )
            return manifest, weights

        manifest, weights = open_folder(folder, CONFIG_NAME, ENCODER_COMPONENT, read)
        with torch.random.fork_rng(devices=[]):
            model = CLIP(**manifest["model"])
        model.load_state_dict(weights)
        return cls.from_model(
            manifest["name"], model, device=device, batch_size=batch_size, amp=amp,
            progress=progress,
        )  # fmt: skip

    def _set(
        self,
        name: str,
        model: nn.Module,
        tokenizer: Tokenizer,
        preprocess: dict[str, Any],
        device: str | torch.device,
        batch_size: int,
        amp: bool,
        progress: Progress | None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: wanted at least 1, got {batch_size}")
        self.name = name
        self.batch_size = batch_size
        self.amp = amp
        self.progress = progress
        self.device = torch.device(device)
        # Inference mode alone freezes it: with `requires_grad` off, torch 2.15 takes 1.3 times as
        # long for texts on a CPU.
        self.model = model.eval().to(self.device)
        self._tokenizer = tokenizer
        self._preprocess = preprocess
        self._transform = picture_transform(preprocess)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim_and_id[0]

    @property
    def encoder_id(self) -> str:
        """Name and the first 16 digits of a SHA-256 over transform and weights."""
        return self._dim_and_id[1]

    @cached_property
    def _dim_and_id(self) -> tuple[int, str]:
        digest = weights_hash(self.model, self._preprocess, self.amp)
        with torch.inference_mode():
            encode: Any = self.model.encode_text
            one = encode(self._tokenizer([""]).to(self.device))
        kind, _, place = self.name.partition(":")
        name = f"{kind}:{Path(place).name}" if kind == "local-dir" else self.name  # not where it is
        return one.shape[1], f"{name}:{digest[:16]}"

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encode N texts.

        Args:
            texts: N strings of any length; tokens beyond the model's context are cut off.

        Returns:
            (N, dim) float32, rows of length 1.

        Raises:
            TypeError: `texts` is one string, or an entry is not a string.
        """
        if isinstance(texts, str):
            raise TypeError("texts: wanted a sequence of strings, got one string")
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts[{place}]: wanted a string, got {type(text).__name__}")
        batches = (
            self._tokenizer([text[:_MAX_CHARACTERS] for text in texts[start : start + step]])
            for start, step in self._batches(len(texts))
        )
        return self._encode(self.model.encode_text, batches, len(texts))

    def encode_images(self, images: Sequence[Image.Image | np.ndarray]) -> np.ndarray:
        """Encode N pictures.

        Args:
            images: PIL images or (H, W, 3) uint8 arrays, whose sizes may differ, or one
                (N, H, W, 3) array.

        Returns:
            (N, dim) float32, rows of length 1.

        Raises:
            TypeError: An entry is not a picture.
            ValueError: An entry has another shape or dtype, or is broken.
        """
        batches = (
            torch.stack(
                [
                    self._transform(as_rgb(images[place], f"images[{place}]"))
                    for place in range(start, min(start + step, len(images)))
                ]
            )
            for start, step in self._batches(len(images))
        )
        return self._encode(self.model.encode_image, batches, len(images))

    def _batches(self, count: int) -> list[tuple[int, int]]:
        return [(start, self.batch_size) for start in range(0, count, self.batch_size)]

    def _encode(self, encode: Any, batches: Iterable[Tensor], count: int) -> np.ndarray:
        if not count:
            return np.empty((0, self.dim), np.float32)
        vectors: list[Tensor] = []
        done = 0
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp)
        with torch.inference_mode(), autocast:
            for batch in batches:
                vectors.append(F.normalize(encode(batch.to(self.device)).float(), dim=-1).cpu())
                done += len(batch)
                if self.progress is not None:
                    self.progress(done, count)
        return torch.cat(vectors).numpy()
