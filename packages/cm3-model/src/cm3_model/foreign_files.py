"""Configs and tensors from other projects' folders, with errors that name the file.

Takes paths, gives plain values, tensors by name, and a `Decoder` of renamed tensors. Only tensors
are unpickled.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cm3_model.checkpoint import COMPILED, CheckpointError, check_dtypes, check_shapes
from cm3_model.config import DecoderConfig
from cm3_model.transformer import Decoder

Weights = dict[str, Tensor]
Made = TypeVar("Made")


def build(
    config: DecoderConfig,
    weights: Weights,
    folder: Path,
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> Decoder:
    """Build a decoder in eval mode from tensors with our names; `folder` is for errors."""
    with torch.device("meta"):
        model = Decoder(config)
    check_shapes(model, weights, folder)
    check_dtypes(weights, dtype, folder)
    weights = {name: value.to(device=device, dtype=dtype) for name, value in weights.items()}
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_().eval()


def guard(folder: Path, make: Callable[[], Made]) -> Made:
    """Run `make`; turn errors about missing or misshapen parts into ones that name the folder."""
    try:
        return make()
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{folder}: missing {error.args[0]}") from error
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{folder}: does not fit its config: {error}") from error


def check_meanings(
    values: Mapping[str, Any], wanted: Mapping[str, tuple[object, ...]], folder: Path
) -> None:
    """Refuse a config in which a key says what the decoder does not do.

    Args:
        values: The config; keys that are not in `wanted` may say anything.
        wanted: What each key may say; None stands for a missing key, too.
        folder: For the error.

    Raises:
        CheckpointError: Names the key.
    """
    for name, choices in wanted.items():
        if values.get(name) not in choices:
            raise CheckpointError(
                f"{folder}: {name}: wanted {choices[0]!r}, got {values.get(name)!r}"
            )


def plain_rotary_theta(values: Mapping[str, Any], folder: Path) -> float:
    """Return the base of the rotary positions, or refuse those that are scaled in any way."""
    theta = values.get("rope_theta", 10_000.0)
    for name in ("rope_scaling", "rope_parameters"):
        part = values.get(name) or {}
        if not isinstance(part, Mapping):
            raise CheckpointError(f"{folder}: {name}: wanted an object, got {part!r}")
        plain = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1}
        for key, value in part.items():
            if key != "rope_theta" and not (key in plain and plain[key] == value):
                raise CheckpointError(
                    f"{folder}: {name}: wanted plain rotary positions, got {key} {value!r}"
                )
        theta = part.get("rope_theta", theta)
    return float(theta)


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: wanted an object, got {values!r}")
    return values


def read_safetensors(folder: Path, skip: str = "\0") -> Weights:
    """Map all safetensors files' tensors, except those whose names start with `skip`."""
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        names = sorted(set(guard(index, lambda: read_json(index)["weight_map"]).values()))
        if (folder / "model.safetensors").is_file() and "model.safetensors" not in names:
            raise CheckpointError(
                f"{folder}: wanted one checkpoint, got model.safetensors and an index of {names}"
            )
    weights: Weights = {}
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name):
            raise CheckpointError(f"{index}: wanted names of files beside it, got {name!r}")
        path = folder / name
        try:
            with safe_open(path, framework="pt") as file:
                wanted = [key for key in file.keys() if not key.startswith(skip)]  # noqa: SIM118
                weights |= {key.replace(COMPILED, ""): file.get_tensor(key) for key in wanted}
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}") from error
    return weights


def unpickle_tensors(path: Path) -> Weights:
    """Load the tensors of a .pth file; anything else in it is refused."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(v, Tensor) for v in values.values()):
        raise CheckpointError(f"{path}: wanted tensors by name, got something else")
    return {name.replace(COMPILED, ""): value for name, value in values.items()}
