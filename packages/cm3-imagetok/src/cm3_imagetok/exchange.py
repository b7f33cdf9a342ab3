"""Foreign checkpoints: read one into a `VQGAN`, or write a `VQGAN` as one.

Reads safetensors (one file, or a folder with an index) and torch's files, of which only tensors and
plain containers, never pickled code. `cm3_imagetok.layouts` knows the names.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cm3_imagetok import layouts
from cm3_imagetok.artifact import atomic_file, write_json
from cm3_imagetok.checkpoint import CheckpointError, check_finite, load_torch, load_vqgan
from cm3_imagetok.interface import COMPONENT
from cm3_imagetok.layouts import OURS
from cm3_imagetok.vqgan import VQGAN

SECTIONS = ("ema", "model", "state_dict")
"""Where torch files keep their tensors, the preferred first."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The contents of a checkpoint."""

    model: VQGAN
    """The model, in evaluation mode and float32."""
    layout: str
    """Layout of the parameters' names, see `cm3_imagetok.layouts`."""
    preset: str | None
    """Name of the preset of this shape, if there is one."""
    missing: tuple[str, ...]
    """Parts of a whole VQGAN that the checkpoint lacks: "decoder" or nothing."""
    unused: dict[str, int]
    """Tensors that do not belong to a VQGAN, counted by the first two parts of their name."""

    def __str__(self) -> str:
        """Describe it in a few lines."""
        config = self.model.config
        side, count = config.image_size, sum(p.numel() for p in self.model.parameters())
        lines = [
            f"layout: {self.layout}" + (f", preset {self.preset}" if self.preset else ""),
            f"shape: {side} x {side} pixels -> {config.grid_size} x {config.grid_size} codes "
            f"of {config.num_codes} ({config.quantizer}), {count:,} parameters",
            f"missing: {', '.join(self.missing) or 'nothing'}"
            + (" (it gives codes, not pictures)" if "decoder" in self.missing else ""),
            "unused: "
            + (", ".join(f"{k} ({n})" for k, n in sorted(self.unused.items())) or "nothing"),
        ]
        return "\n".join(lines)


def import_vqgan(path: str | os.PathLike[str], image_size: int | None = None) -> Imported:
    """Read a VQGAN from a checkpoint; guess the layout from the parameters' names.

    Args:
        path: A safetensors or torch file, or a folder: one of `save_vqgan`, or one of Hugging Face
            with `model.safetensors` or `model.safetensors.index.json`.
        image_size: Side in pixels that the model is meant for; see `layouts.infer_config`.

    Raises:
        CheckpointError: The file is missing, damaged, holds pickled code, no VQGAN, or weights that
            are NaN or infinite.
    """
    path = Path(path)
    if _is_ours(path):
        model = load_vqgan(path)
        absent = () if model.decoder is not None else ("decoder",)
        return Imported(model=model, layout=OURS, preset=None, missing=absent, unused={})
    try:
        state, unused = _read(path)
        layout = layouts.guess_layout(state)
        state = layouts.to_native(state, layout)
        config, preset = layouts.infer_config(state, layout, image_size)
    except layouts.LayoutError as error:
        raise CheckpointError(f"{path}: {error}") from None
    with torch.random.fork_rng(devices=[]):
        model = VQGAN(config).eval()
    wanted = model.state_dict()
    lacking = sorted(set(wanted) - set(state))
    if lacking:
        some = ", ".join(lacking[:3])
        raise CheckpointError(
            f"{path}: wanted {len(wanted)} parameters, {len(lacking)} are missing, as {some}"
        )
    for name, tensor in wanted.items():
        if tensor.shape != state[name].shape:
            raise CheckpointError(
                f"{path}: {name}: wanted shape {tuple(tensor.shape)}, "
                f"got {tuple(state[name].shape)}"
            )
    model.load_state_dict({name: state[name] for name in wanted})
    check_finite(model, path)
    return Imported(
        model=model,
        layout=layout,
        preset=preset,
        missing=() if config.has_decoder else ("decoder",),
        unused=dict(unused + Counter(_head(name) for name in set(state) - set(wanted))),
    )


def export_vqgan(model: VQGAN, path: str | os.PathLike[str], layout: str) -> None:
    """Write a model for other programs; `layouts.from_native` says what each layout leaves out.

    Args:
        model: The model; the layout must be able to hold its shape.
        path: For "taming" a file, by custom `.ckpt`; for "hugging-face" a folder, which
            `ChameleonVQVAE.from_pretrained` reads and which lacks the decoder.
        layout: One of `layouts.WRITTEN`.

    Raises:
        LayoutError: The layout cannot hold this shape.
        OSError: The disk is full or the folder not writable; no partial file is left.
    """
    path = Path(path)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    state = layouts.from_native(state, model.config, layout)
    if layout == "taming":
        content = io.BytesIO()  # torch's own writer hides the OSError of a full disk
        torch.save({"state_dict": state}, content)
        with atomic_file(path) as file:
            file.write(content.getbuffer())
    else:
        with atomic_file(path / "model.safetensors") as file:
            file.write(safetensors.torch.save(state, metadata={"format": "pt"}))
        write_json(path / "config.json", layouts.hugging_face_config(model.config))


def _is_ours(path: Path) -> bool:
    try:
        saved = json.loads((path / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(saved, dict) and saved.get("component") == COMPONENT


def _head(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _read(path: Path) -> tuple[dict[str, Tensor], Counter[str]]:
    """Read the VQGAN's tensors, by name without prefix, and count the others."""
    if path.is_dir() or path.suffix in (".safetensors", ".json"):
        return _read_safetensors(path)
    return _split(_read_torch(path))


def _split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Counter[str]]:
    prefix = layouts.find_prefix(tensors)
    inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return inside, Counter(_head(name) for name in tensors if not name.startswith(prefix))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Counter[str]]:
    """Read the VQGAN's tensors alone, so that a language model around it costs nothing."""
    if path.is_dir():
        index = path / "model.safetensors.index.json"
        path = index if index.is_file() else path / "model.safetensors"
    try:
        if path.suffix == ".json":
            where = json.loads(path.read_bytes())["weight_map"]
            place = {str(name): path.parent / Path(file).name for name, file in where.items()}
        else:
            with safe_open(path, "pt") as file:
                place = dict.fromkeys(file.keys(), path)
        prefix = layouts.find_prefix(place)
        state = {}
        for part in sorted({file for name, file in place.items() if name.startswith(prefix)}):
            with safe_open(part, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (no mapping)
                    if name.startswith(prefix):
                        state[name.removeprefix(prefix)] = file.get_tensor(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{error.filename or path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: wanted safetensors, got something else ({error})") from None
    except layouts.LayoutError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: wanted an index of safetensors ({error!r})") from None
    return state, Counter(_head(name) for name in place if not name.startswith(prefix))


def _read_torch(path: Path) -> dict[str, Tensor]:
    """Read the tensors of the section of a torch file that holds a VQGAN."""
    content = load_torch(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: wanted a dict of tensors, got {type(content).__name__}")
    for section in (*(content.get(name) for name in SECTIONS), content):
        if isinstance(section, dict) and any(str(k).endswith(layouts.ANCHOR) for k in section):
            return {str(k): v for k, v in section.items() if isinstance(v, Tensor)}
    keys = ", ".join(map(str, list(content)[:5])) or "nothing"
    raise CheckpointError(f"{path}: wanted a VQGAN's tensors ({layouts.ANCHOR}), got {keys}")
