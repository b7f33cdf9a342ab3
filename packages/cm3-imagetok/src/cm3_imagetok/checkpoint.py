"""A VQGAN on disk: `model-HASH.safetensors` and `config.json` in a folder.

`config.json` holds component and interface version, the shape, the weights' file, and the SHA-256
of both, which are checked on load: a flipped byte would otherwise load silently. It is replaced
last, so that a save that is killed leaves the old model or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError

from cm3_imagetok.artifact import (
    atomic_file,
    check_stamp,
    sha256_of_file,
    stamp,
    write_json,
)
from cm3_imagetok.config import VQGANConfig
from cm3_imagetok.interface import COMPONENT, INTERFACE_VERSION
from cm3_imagetok.vqgan import VQGAN


class CheckpointError(ValueError):
    """A saved model that cannot be loaded; the message names the file and the cause."""


def save_vqgan(model: VQGAN, folder: str | os.PathLike[str]) -> None:
    """Write the model to `folder`, in place of an earlier one.

    Raises:
        CheckpointError: The folder holds the `config.json` of something else.
        OSError: The disk is full or the folder not writable; no partial file is left, and an
            earlier model is untouched.
    """
    path = Path(folder) / "config.json"
    before = _read(path) if path.exists() else {}
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    written: dict[str, str] = {}

    def name_by_hash(file: BinaryIO) -> str:
        file.seek(0)
        written["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore
        written["weights"] = f"model-{written['sha256'][:16]}.safetensors"
        return written["weights"]

    with atomic_file(Path(folder) / "model.safetensors", name=name_by_hash) as file:
        file.write(safetensors.torch.save(state))
    config = asdict(model.config)
    stamped = stamp(COMPONENT, INTERFACE_VERSION)
    write_json(path, {**stamped, "config": config, "config_sha256": _seal(config), **written})
    if before and (old := _weights_name(before, path)) != written["weights"]:
        (Path(folder) / old).unlink(missing_ok=True)


def load_vqgan(folder: str | os.PathLike[str]) -> VQGAN:
    """Read a model that `save_vqgan` wrote, in evaluation mode.

    Raises:
        CheckpointError: A file is missing, damaged, of another component, or of another major
            version, or a weight is NaN or infinite.
    """
    path = Path(folder) / "config.json"
    saved = _read(path)
    weights = Path(folder) / _weights_name(saved, path)
    try:
        sha256 = sha256_of_file(weights)
    except FileNotFoundError:
        raise CheckpointError(f"{weights}: no such file; wanted a saved VQGAN") from None
    if sha256 != saved.get("sha256"):
        raise CheckpointError(f"{weights}: damaged, its SHA-256 is not the saved one")
    config = _config(saved, path)
    with torch.random.fork_rng(devices=[]):
        model = VQGAN(config)
    try:
        model.load_state_dict(load_tensors(weights))
    except RuntimeError as error:
        raise CheckpointError(f"{weights} does not fit {path}: {error}") from None
    check_finite(model, weights)
    return model.eval()


def check_finite(model: VQGAN, path: Path) -> None:
    """Refuse weights that are NaN or infinite: every code would be 0.

    Raises:
        CheckpointError: Names the file and the tensor.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name}: wanted finite numbers, got NaN or infinity")


def load_torch(path: str | os.PathLike[str]) -> Any:
    """Read a torch file of tensors in plain containers; pickled code is never run.

    Raises:
        CheckpointError: The file is missing, damaged, or holds other Python objects.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        cause = next((line for line in str(error).splitlines() if "GLOBAL" in line), "")
        raise CheckpointError(
            f"{path}: wanted tensors, got pickled Python objects too, which are never run here"
            f"{f' ({cause.strip()})' if cause else ''}. If you trust the file, keep its tensors "
            f"alone: torch.save({{'state_dict': torch.load(path, weights_only=False)"
            f"['state_dict']}}, new_path), and take new_path"
        ) from None
    except Exception as error:  # a damaged file raises many kinds
        cause = str(error).splitlines()[0] if str(error) else ""
        raise CheckpointError(
            f"{path}: wanted a torch or safetensors file, got one that cannot be read "
            f"({type(error).__name__}: {cause})"
        ) from None


def load_tensors(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read the tensors, by name, of a safetensors file or of a torch file that is one dict.

    Raises:
        CheckpointError: The file is missing or damaged, or does not hold a dict.
    """
    if Path(path).suffix != ".safetensors":
        content = load_torch(path)
        if not isinstance(content, dict):
            raise CheckpointError(f"{path}: wanted a dict of tensors, got {type(content).__name__}")
        return {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: wanted safetensors, got something else ({error})") from None


def _read(path: Path) -> dict[str, Any]:
    """Read the `config.json` of a saved VQGAN."""
    try:
        saved = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; wanted a saved VQGAN") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: wanted JSON, got something else ({error})") from None
    return check_stamp(saved, COMPONENT, INTERFACE_VERSION, path, CheckpointError)


def _weights_name(saved: dict[str, Any], path: Path) -> str:
    name = saved.get("weights", "model.safetensors")  # the plain name is that of version 0.1
    if not isinstance(name, str) or name in ("", "..") or "\0" in name or Path(name).name != name:
        raise CheckpointError(f"{path}: weights: wanted the name of a file, got {name!r}")
    return name


def _seal(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _config(saved: dict[str, Any], path: Path) -> VQGANConfig:
    values = saved.get("config")
    names = {field.name for field in fields(VQGANConfig)}
    if not isinstance(values, dict) or set(values) - names:
        unknown = sorted(set(values) - names) if isinstance(values, dict) else values
        raise CheckpointError(f"{path}: wanted the fields of VQGANConfig, got unknown {unknown}")
    if "config_sha256" in saved and saved["config_sha256"] != _seal(values):
        raise CheckpointError(f"{path}: damaged, the config's SHA-256 is not the saved one")
    config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return VQGANConfig(**config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: config: {error}") from None
