"""Chameleon and Anole weights: published folders to a `Decoder` and back.

They come in two layouts: "original" (`consolidated*.pth`, one file per shard of model parallelism,
with `params.json`) and "huggingface" (safetensors with `config.json`). They differ in the order of
a head's channels for the rotary turn; ours is the original's. Only the language model is read: the
image tokenizer is another component.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cm3_model.artifact import atomic_file, write_json
from cm3_model.chameleon_configs import from_hf_config, from_params, to_hf_config, to_params
from cm3_model.chameleon_layouts import (
    from_huggingface,
    from_original,
    merge,
    split,
    to_huggingface,
    to_original,
)
from cm3_model.checkpoint import (
    CheckpointError,
    finish_replacement,
    weights_to_save,
    whole_checkpoint,
    write_errors,
    write_tensors,
)
from cm3_model.config import CHAMELEON_PARTS
from cm3_model.foreign_files import (
    build,
    guard,
    read_json,
    read_safetensors,
    unpickle_tensors,
)
from cm3_model.transformer import Decoder

Layout = Literal["huggingface", "original"]


def import_chameleon(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Decoder:
    """Read the language model of a Chameleon or Anole folder, in either layout, in eval mode.

    Raises:
        CheckpointError: If it is not one, is damaged, or its tensors do not fit its config.
    """
    folder = Path(folder)
    finish_replacement(folder)
    if (folder / "config.json").is_file():
        values = read_json(folder / "config.json")
        if values.get("model_type") != "chameleon":
            raise CheckpointError(
                f"{folder}: model_type: wanted 'chameleon', got {values.get('model_type')!r}"
            )
        weights = read_safetensors(folder, skip="model.vqmodel.")
        config = from_hf_config(values, folder)
        ours = guard(folder, lambda: from_huggingface(weights, config))
    else:
        paths = sorted(folder.glob("consolidated*.pth"))
        if not paths:
            inside = sorted(path.parent.name for path in folder.glob("models/*/params.json"))
            hint = f"; there are models/{', models/'.join(inside)} in it" if inside else ""
            raise CheckpointError(
                f"{folder}: wanted config.json or consolidated*.pth, got neither{hint}"
            )
        params = read_json(folder / "params.json")
        one = (folder / "consolidated.pth").is_file()
        count = params.get("model_parallel_size", 1 if one else len(paths))
        if len(paths) != count:
            names = [path.name for path in paths]
            raise CheckpointError(
                f"{folder}: model_parallel_size: wanted {count} files, got {names}"
            )
        shards = [unpickle_tensors(path) for path in paths]
        merged = guard(folder, lambda: merge(shards))
        config = guard(folder, lambda: from_params(params, merged, folder))
        ours = guard(folder, lambda: from_original(merged, config))
    return build(config, ours, folder, device, dtype)


def export_chameleon(
    model: Decoder,
    folder: str | Path,
    layout: Layout = "huggingface",
    *,
    num_shards: int = 1,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a decoder as a Chameleon folder.

    Args:
        model: A decoder with Chameleon's parts.
        folder: Where to write; made if missing. An earlier checkpoint there, in any layout that
            this package writes, is replaced once the new one is whole.
        layout: Whose names and order to use.
        num_shards: Number of files; "original" only.
        config: More keys for the config file, such as "vocabulary_map", which transformers wants.
        tensors: More tensors, such as the image tokenizer's under "model.vqmodel."; "huggingface"
            only.

    Raises:
        CheckpointError: If the decoder is not a Chameleon or does not fit the shards, or a file
            cannot be written.
    """
    folder, ours = Path(folder), weights_to_save(model)
    shape = model.config
    wrong = [name for name, value in CHAMELEON_PARTS.items() if getattr(shape, name) != value]
    if wrong:
        raise CheckpointError(f"model: wanted Chameleon's parts, got other {wrong}")
    if layout == "original":
        shards = split(to_original(ours, shape), shape, num_shards)
        params = {
            "model_parallel_size": num_shards, "model": to_params(shape), **(config or {}),
        }  # fmt: skip
        with whole_checkpoint(folder) as new:
            for at, shard in enumerate(shards):
                name = "consolidated.pth" if num_shards == 1 else f"consolidated.{at:02d}.pth"
                with write_errors(new / name), atomic_file(new / name) as file:
                    torch.save(shard, file)
            write_json(new / "params.json", params)
            write_json(new / "consolidate_params.json", {"model_parallel_size": num_shards})
        return
    theirs = to_huggingface(ours, shape) | dict(tensors or {})
    theirs = {name: value.contiguous() for name, value in theirs.items()}
    with whole_checkpoint(folder) as new:
        write_tensors(new / "model.safetensors", theirs, {"format": "pt"})
        write_json(new / "config.json", to_hf_config(shape) | dict(config or {}))
