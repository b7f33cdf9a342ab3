"""A decoder on disk: `model.safetensors` with the weights, `config.json` with everything else.

`config.json` names the component and the interface version, and holds the `DecoderConfig` and the
size and SHA-256 of the weights. All files of a checkpoint appear at once, see `replacement.py`.
Weights above 5 GB are split into shards, `model-00001-of-00003.safetensors` and so on, with the
`model.safetensors.index.json` that other libraries read. Loading maps the weights into a model that
was built without memory of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cm3_model.artifact import atomic_file, check_stamp, sha256_of_file, stamp, write_json
from cm3_model.config import DecoderConfig
from cm3_model.interface import COMPONENT, INTERFACE_VERSION
from cm3_model.replacement import finish, replacing
from cm3_model.transformer import Decoder

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
COMPILED = "_orig_mod."
"""What `torch.compile` puts into the names of the weights of a module that it wraps."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or is not what it claims; the message names the file."""


def save_decoder(
    model: Decoder,
    folder: str | Path,
    extra: Mapping[str, str] | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Write a decoder into a folder, which is made if missing.

    Args:
        model: The decoder.
        folder: Where to write; an earlier checkpoint there, in any layout that this package
            writes, is replaced once the new one is whole.
        extra: Anything else worth keeping, such as the vocabulary's hash; see `read_manifest`.
        max_shard_bytes: Weights above this size are written as several files, each of at most
            this size, or of one tensor.

    Raises:
        CheckpointError: If the model is not a plain `Decoder` or shares a tensor that its config
            does not tie, or if a file cannot be written; nothing half-written stays.
    """
    folder = Path(folder)
    weights = weights_to_save(model)
    shards = _shards(weights, max_shard_bytes)
    with whole_checkpoint(folder) as new:
        for name, part in shards.items():
            write_tensors(new / name, part)
        prints = [_fingerprint(new / name) for name in shards]
        if len(shards) > 1:
            index = {
                "metadata": {"total_size": sum(value.nbytes for value in weights.values())},
                "weight_map": {key: name for name, part in shards.items() for key in part},
            }
            write_json(new / INDEX_FILE, index)
        manifest = {
            **stamp(COMPONENT, INTERFACE_VERSION),
            "config": asdict(model.config),
            "weights": prints[0] if len(prints) == 1 else {"files": prints},
            "extra": dict(extra or {}),
        }
        write_json(new / CONFIG_FILE, manifest)


def load_decoder(
    folder: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Decoder:
    """Read a decoder that `save_decoder` wrote, in eval mode.

    Args:
        folder: The checkpoint.
        device: Where the weights go.
        dtype: Dtype to cast them to; None keeps what was saved.

    Raises:
        CheckpointError: If the folder holds something else, another major version, damaged
            weights, or weights that do not fit the config.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    path = folder / WEIGHTS_FILE
    config = _parse_config(manifest.get("config"), folder / CONFIG_FILE)
    with torch.device("meta"):
        model = Decoder(config)
    listed = manifest.get("weights")
    files = listed.get("files") if isinstance(listed, dict) and "files" in listed else [listed]
    weights: dict[str, torch.Tensor] = {}
    for wanted in files if isinstance(files, list) else [files]:
        name = wanted.get("file") if isinstance(wanted, dict) else WEIGHTS_FILE
        if not isinstance(name, str) or not re.fullmatch(r"model[\d\w-]*\.safetensors", name):
            raise CheckpointError(
                f"{folder / CONFIG_FILE}: weights: wanted names of weight files, got {name!r}"
            )
        path = folder / name
        try:
            found = _fingerprint(path)
            if found != wanted:
                raise CheckpointError(f"{path}: damaged or replaced: wanted {wanted}, got {found}")
            part = load_file(path, device=str(device))
            weights |= {name.replace(COMPILED, ""): value for name, value in part.items()}
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: wanted the weights, got no such file") from error
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}") from error
    check_shapes(model, weights, path)
    check_dtypes(weights, dtype, path)
    if dtype is not None:
        weights = {name: value.to(dtype) for name, value in weights.items()}
    model.load_state_dict(weights, assign=True)
    return model.eval()


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Read `config.json` of a checkpoint and check component and version.

    The keys are `component`, `interface_version`, `config`, `weights` and `extra`.

    Raises:
        CheckpointError: If the file is missing, damaged, or of another component or version.
    """
    path = Path(folder) / CONFIG_FILE
    finish_replacement(path.parent)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: wanted a checkpoint's config, got no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    return check_stamp(manifest, COMPONENT, INTERFACE_VERSION, path, CheckpointError)


def _parse_config(values: object, path: Path) -> DecoderConfig:
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: config: wanted an object, got {values!r}")
    unknown = values.keys() - {field.name for field in fields(DecoderConfig)}
    if unknown:
        raise CheckpointError(f"{path}: config: unknown keys {sorted(unknown)}")
    if "norm_eps" in values:  # before it had a name of its own
        values = {"qk_norm_eps": values["norm_eps"], **values}
    try:
        return DecoderConfig(**values)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: config: {error}") from error


def check_shapes(model: Decoder, weights: Mapping[str, torch.Tensor], path: Path | str) -> None:
    """Refuse weights that do not fit; the error names every missing, extra and misshapen key."""
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    problems = [f"missing {name} {wanted[name]}" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"extra {name} {found[name]}" for name in sorted(found.keys() - wanted.keys())]
    problems += [
        f"misshapen {name}: wanted {wanted[name]}, got {found[name]}"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name] != found[name]
    ]
    if problems:
        raise CheckpointError(f"{path}: does not fit its config: " + "; ".join(problems))


def check_dtypes(
    weights: Mapping[str, torch.Tensor], dtype: torch.dtype | None, path: Path | str
) -> None:
    """Refuse weights in formats that need scales, and several formats if none is asked for."""
    found: dict[torch.dtype, list[str]] = {}
    for name, value in weights.items():
        found.setdefault(value.dtype, []).append(name)
    plain = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    odd = [kind for kind in found if kind not in plain]
    if odd or (len(found) > 1 and dtype is None):
        wanted = "plain numbers" if odd else "one format, or dtype= to convert to"
        shown = {kind: found[kind] for kind in odd or found}
        listed = "; ".join(
            f"{kind} in {', '.join(names[:3])}" + (f" and {len(names) - 3} more" * (len(names) > 3))
            for kind, names in shown.items()
        )
        raise CheckpointError(f"{path}: weights: wanted {wanted}, got {listed}")


def weights_to_save(model: Decoder) -> dict[str, torch.Tensor]:
    """Return a decoder's weights (on the CPU) by the names that a plain decoder has for them.

    Args:
        model: The decoder; it, or parts of it, may be wrapped by `torch.compile`.

    Raises:
        CheckpointError: If the model is something else; if weights are int8, do not fit the config,
            or share memory though the config does not tie them.
    """
    plain = getattr(model, COMPILED.rstrip("."), model)
    if not isinstance(plain, Decoder):
        raise CheckpointError(f"model: wanted a Decoder, got {type(plain).__name__}")
    weights = {
        name.replace(COMPILED, ""): value.detach() for name, value in plain.state_dict().items()
    }
    for name, value in weights.items():
        if value.is_meta or not value.is_floating_point():
            found = "no memory" if value.is_meta else f"{value.dtype}; save before quantize_int8"
            raise CheckpointError(f"model: wanted numbers in {name}, got {found}")
    with torch.device("meta"):
        check_shapes(Decoder(plain.config), weights, "model")
    end, owner = 0, ""
    for name, value in sorted(weights.items(), key=lambda item: item[1].data_ptr()):
        if value.data_ptr() < end:
            raise CheckpointError(
                f"model: wanted weights of their own, got {owner} and {name} in the same memory; "
                "copy one, or set tie_embeddings if they are embedding and output"
            )
        end, owner = value.data_ptr() + value.nbytes, name
    return {name: value.contiguous().cpu() for name, value in weights.items()}


def _shards(weights: dict[str, torch.Tensor], max_bytes: int) -> dict[str, dict[str, torch.Tensor]]:
    """Group tensors, in order, by the file that will hold them."""
    parts: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for key, value in weights.items():
        if parts[-1] and size + value.nbytes > max_bytes:
            parts.append({})
            size = 0
        parts[-1][key] = value
        size += value.nbytes
    if len(parts) == 1:
        return {WEIGHTS_FILE: parts[0]}
    return {
        f"model-{at:05d}-of-{len(parts):05d}.safetensors": part
        for at, part in enumerate(parts, start=1)
    }


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of_file(path)}


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all; raise `CheckpointError` if that fails."""
    with write_errors(path), atomic_file(path) as file:
        save_file(tensors, file.name, metadata)


@contextmanager
def whole_checkpoint(folder: Path) -> Iterator[Path]:
    """Run `replacing`, with `CheckpointError` if a file cannot be written."""
    with write_errors(folder), replacing(folder) as new:
        yield new


def finish_replacement(folder: Path) -> None:
    """Run `finish` before reading a checkpoint, with `CheckpointError` if that fails."""
    try:
        finish(folder)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{folder}: a stopped save cannot be finished: {error}") from error


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn errors of writing `path` into `CheckpointError`."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(error.strerror or str(error)) from error
    except (RuntimeError, SafetensorError) as error:
        reason = error.__context__ or error  # torch covers an OSError with a RuntimeError
        raise CheckpointError(f"could not write {path}: {reason}") from error
