"""Chameleon and Anole weights: published folders to a `Decoder` and back.

They come in two layouts: "original" (`consolidated*.pth`, one file per shard of model parallelism,
with `params.json`) and "huggingface" (safetensors with `config.json`). They differ in the order of
a head's channels for the rotary turn; ours is the original's. Only the language model is read: the
image tokenizer is another component.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cm3_model.artifact import atomic_file, write_json
from cm3_model.checkpoint import CheckpointError, write_errors, write_tensors
from cm3_model.config import CHAMELEON_PARTS, DecoderConfig
from cm3_model.foreign_files import (
    Weights,
    build,
    guard,
    read_json,
    read_safetensors,
    unpickle_tensors,
)
from cm3_model.transformer import Decoder

Layout = Literal["huggingface", "original"]

# Dimension along which model parallelism splits a matrix; all others are whole in every shard.
_SHARDED = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1}
_SHARDED["tok_embeddings"] = 1

# Ours, the original's and Hugging Face's names of the tensors of one layer.
_LAYER = (
    ("attention.out.weight", "attention.wo.weight", "self_attn.o_proj.weight"),
    ("mlp.down.weight", "feed_forward.w2.weight", "mlp.down_proj.weight"),
    ("attention_norm.weight", "attention_norm.weight", "input_layernorm.weight"),
    ("mlp_norm.weight", "ffn_norm.weight", "post_attention_layernorm.weight"),
)
_TOP = (
    ("token_embedding.weight", "tok_embeddings.weight", "model.embed_tokens.weight"),
    ("norm.weight", "norm.weight", "model.norm.weight"),
    ("output.weight", "output.weight", "lm_head.weight"),
)


def import_chameleon(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Decoder:
    """Read the language model of a Chameleon or Anole folder, in either layout, in eval mode.

    Raises:
        CheckpointError: If it is not one, is damaged, or its tensors do not fit its config.
    """
    folder = Path(folder)
    if (folder / "config.json").is_file():
        values = read_json(folder / "config.json")
        if values.get("model_type") != "chameleon":
            raise CheckpointError(
                f"{folder}: model_type: wanted 'chameleon', got {values.get('model_type')!r}"
            )
        weights = read_safetensors(folder, skip="model.vqmodel.")
        config = _hf_config(values, folder)
        ours = guard(folder, lambda: _from_huggingface(weights, config))
    else:
        paths = sorted(folder.glob("consolidated*.pth"))
        if not paths:
            raise CheckpointError(f"{folder}: wanted config.json or consolidated*.pth, got neither")
        shards = [unpickle_tensors(path) for path in paths]
        params = read_json(folder / "params.json")
        merged = guard(folder, lambda: _merge(shards))
        config = guard(folder, lambda: _original_config(params, merged))
        ours = guard(folder, lambda: _from_original(merged, config))
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
        folder: Where to write; made if missing.
        layout: Whose names and order to use.
        num_shards: Number of files; "original" only.
        config: More keys for the config file, such as "vocabulary_map", which transformers wants.
        tensors: More tensors, such as the image tokenizer's under "model.vqmodel."; "huggingface"
            only.

    Raises:
        CheckpointError: If the decoder is not a Chameleon or does not fit the shards, or a file
            cannot be written.
    """
    folder, shape = Path(folder), model.config
    wrong = [name for name, value in CHAMELEON_PARTS.items() if getattr(shape, name) != value]
    if wrong:
        raise CheckpointError(f"model: wanted Chameleon's parts, got other {wrong}")
    ours = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    if layout == "original":
        shards = _split(_to_original(ours, shape), shape, num_shards)
        for at, shard in enumerate(shards):
            name = "consolidated.pth" if num_shards == 1 else f"consolidated.{at:02d}.pth"
            with write_errors(folder / name), atomic_file(folder / name) as file:
                torch.save(shard, file)
        values = {
            "dim": shape.width, "n_layers": shape.num_layers, "n_heads": shape.num_heads,
            "n_kv_heads": shape.kv_heads, "norm_eps": shape.norm_eps,
            "rope_theta": shape.rotary_theta, "max_seq_len": shape.max_length,
            "swin_norm": shape.norm_placement == "after",
        }  # fmt: skip
        params = {"model_parallel_size": num_shards, "model": values, **(config or {})}
        with write_errors(folder / "params.json"):
            write_json(folder / "params.json", params)
        return
    theirs = _to_huggingface(ours, shape) | dict(tensors or {})
    theirs = {name: value.contiguous() for name, value in theirs.items()}
    write_tensors(folder / "model.safetensors", theirs, {"format": "pt"})
    values = {
        "architectures": ["ChameleonForConditionalGeneration"], "model_type": "chameleon",
        "vocab_size": shape.vocab_size, "hidden_size": shape.width,
        "intermediate_size": shape.mlp_hidden, "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads, "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.max_length, "rms_norm_eps": shape.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rotary_theta},
        "hidden_act": "silu", "swin_norm": shape.norm_placement == "after",
        "tie_word_embeddings": False,
    }  # fmt: skip
    with write_errors(folder / "config.json"):
        write_json(folder / "config.json", values | dict(config or {}))


def _from_original(theirs: Weights, config: DecoderConfig) -> Weights:
    """Rename the original's tensors, shards merged, to ours."""
    rest = dict(theirs)
    ours = {mine: rest.pop(name) for mine, name, _ in _TOP}
    for layer in range(config.num_layers):
        old, new = f"layers.{layer}.", f"blocks.{layer}."
        parts = [rest.pop(f"{old}attention.{part}.weight") for part in ("wq", "wk", "wv")]
        ours[new + "attention.qkv.weight"] = torch.cat(parts)
        gate, up = (rest.pop(f"{old}feed_forward.{part}.weight") for part in ("w1", "w3"))
        ours[new + "mlp.up.weight"] = torch.cat([gate, up])
        for mine, name, _ in _LAYER:
            ours[new + mine] = rest.pop(old + name)
        for kind, letter in (("query", "q"), ("key", "k")):
            heads = config.num_heads if kind == "query" else config.kv_heads
            for part in ("weight", "bias"):
                shards = rest.pop(f"{old}attention.{letter}_normalization.{part}")  # (shards, W)
                spread = shards.repeat_interleave(heads // len(shards), 0)  # (H, W)
                ours[f"{new}attention.{kind}_norm.{part}"] = spread
    rest.pop("rope.freqs", None)
    return ours | rest


def _to_original(ours: Weights, config: DecoderConfig) -> Weights:
    """Rename our tensors to the original's; query and key norms keep one row per head."""
    theirs = {name: ours[mine] for mine, name, _ in _TOP}
    sizes = [heads * config.head_width for heads in (config.num_heads, *[config.kv_heads] * 2)]
    for layer in range(config.num_layers):
        old, new = f"blocks.{layer}.", f"layers.{layer}."
        parts = ours[old + "attention.qkv.weight"].split(sizes)
        for name, part in zip(("wq", "wk", "wv"), parts, strict=True):
            theirs[f"{new}attention.{name}.weight"] = part
        for name, part in zip(("w1", "w3"), ours[old + "mlp.up.weight"].chunk(2), strict=True):
            theirs[f"{new}feed_forward.{name}.weight"] = part
        for mine, name, _ in _LAYER:
            theirs[new + name] = ours[old + mine]
        for kind, letter in (("query", "q"), ("key", "k")):
            for part in ("weight", "bias"):
                name = f"{new}attention.{letter}_normalization.{part}"
                theirs[name] = ours[f"{old}attention.{kind}_norm.{part}"]
    return theirs


def _from_huggingface(theirs: Weights, config: DecoderConfig) -> Weights:
    """Rename Hugging Face's tensors to ours, in our rotary order, by way of the original's."""
    rest = dict(theirs)
    old = {original: rest.pop(name) for _, original, name in _TOP}
    for layer in range(config.num_layers):
        hf, new = f"model.layers.{layer}.", f"layers.{layer}."
        for letter in "qkv":
            heads = config.num_heads if letter == "q" else config.kv_heads
            matrix = rest.pop(f"{hf}self_attn.{letter}_proj.weight")
            turned = matrix if letter == "v" else _neighbours(matrix, heads)
            old[f"{new}attention.w{letter}.weight"] = turned
            for part in ("weight", "bias") if letter != "v" else ():
                norm = rest.pop(f"{hf}self_attn.{letter}_norm.{part}")  # (H or 1, W)
                norm = _neighbours(norm.expand(heads, -1).reshape(-1, 1), heads)
                old[f"{new}attention.{letter}_normalization.{part}"] = norm.view(heads, -1)
        old[new + "feed_forward.w1.weight"] = rest.pop(hf + "mlp.gate_proj.weight")
        old[new + "feed_forward.w3.weight"] = rest.pop(hf + "mlp.up_proj.weight")
        for _, original, name in _LAYER:
            old[new + original] = rest.pop(hf + name)
    return _from_original(old, config) | rest


def _to_huggingface(ours: Weights, config: DecoderConfig) -> Weights:
    """Rename our tensors to Hugging Face's, in their rotary order."""
    old = _to_original(ours, config)
    theirs = {name: old[original] for _, original, name in _TOP}
    for layer in range(config.num_layers):
        was, new = f"layers.{layer}.", f"model.layers.{layer}."
        for letter in "qkv":
            heads = config.num_heads if letter == "q" else config.kv_heads
            matrix = old[f"{was}attention.w{letter}.weight"]
            turned = matrix if letter == "v" else _halves(matrix, heads)
            theirs[f"{new}self_attn.{letter}_proj.weight"] = turned
            for part in ("weight", "bias") if letter != "v" else ():
                norm = old[f"{was}attention.{letter}_normalization.{part}"]
                norm = _halves(norm.reshape(-1, 1), heads).view(heads, -1)
                theirs[f"{new}self_attn.{letter}_norm.{part}"] = norm
        theirs[new + "mlp.gate_proj.weight"] = old[was + "feed_forward.w1.weight"]
        theirs[new + "mlp.up_proj.weight"] = old[was + "feed_forward.w3.weight"]
        for _, original, name in _LAYER:
            theirs[new + name] = old[was + original]
    return theirs


def _halves(rows: Tensor, heads: int) -> Tensor:
    """Reorder each head's rows (H * W, D), 0 1 2 3 to 0 2 1 3: pairs are then W / 2 apart."""
    return rows.reshape(heads, -1, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def _neighbours(rows: Tensor, heads: int) -> Tensor:
    """Undo `_halves`, so that pairs are neighbours again."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def _merge(shards: Sequence[Weights]) -> Weights:
    """Merge shards of model parallelism; query and key norms keep one row per shard (S, W)."""
    merged = {}
    for name in shards[0]:
        parts = [shard[name] for shard in shards]
        if "_normalization." in name:
            merged[name] = torch.stack(parts)
        elif (dim := _SHARDED.get(name.split(".")[-2])) is not None:
            merged[name] = torch.cat(parts, dim)
        else:
            merged[name] = parts[0]
    return merged


def _split(theirs: Weights, config: DecoderConfig, num_shards: int) -> list[Weights]:
    """Undo `_merge`, from norms with one row per head."""
    if num_shards < 1 or config.kv_heads % num_shards or config.mlp_hidden % num_shards:
        raise CheckpointError(
            f"num_shards: wanted a divisor of {config.kv_heads} heads and {config.mlp_hidden}, "
            f"got {num_shards}"
        )
    shards: list[Weights] = [{} for _ in range(num_shards)]
    for name, value in theirs.items():
        if "_normalization." in name:
            groups = value.unflatten(0, (num_shards, -1))  # (S, H / S, W)
            if not bool((groups == groups[:, :1]).all()):
                raise CheckpointError(
                    f"{name}: wanted heads of a shard to be alike, got heads that are not; "
                    "use more shards or layout 'huggingface'"
                )
            parts: Sequence[Tensor] = groups[:, 0].unbind()
        elif (dim := _SHARDED.get(name.split(".")[-2])) is not None:
            parts = value.chunk(num_shards, dim)
        else:
            parts = [value] * num_shards
        for shard, part in zip(shards, parts, strict=True):
            shard[name] = part.clone()  # a view would be saved with all that it is a view of
    return shards


def _original_config(params: Mapping[str, Any], merged: Weights) -> DecoderConfig:
    values = params.get("model", params)
    return _chameleon(
        vocab_size=merged["output.weight"].shape[0],
        max_length=values.get("max_seq_len", 4096),
        num_layers=values["n_layers"],
        width=values["dim"],
        num_heads=values["n_heads"],
        num_kv_heads=values.get("n_kv_heads") or values["n_heads"],
        mlp_width=merged["layers.0.feed_forward.w1.weight"].shape[0],
        norm_eps=values.get("norm_eps", 1e-5),
        rotary_theta=float(values.get("rope_theta", 10_000.0)),
        swin_norm=values.get("swin_norm", False),
    )


def _hf_config(values: Mapping[str, Any], folder: Path) -> DecoderConfig:
    rotary = values.get("rope_parameters") or {"rope_theta": values.get("rope_theta", 10_000.0)}
    kind = rotary.get("rope_type", "default")
    if kind != "default" or values.get("attention_bias") or values.get("mlp_bias"):
        raise CheckpointError(f"{folder}: wanted plain rotary positions and no biases, got other")
    return guard(
        folder,
        lambda: _chameleon(
            vocab_size=values["vocab_size"],
            max_length=values["max_position_embeddings"],
            num_layers=values["num_hidden_layers"],
            width=values["hidden_size"],
            num_heads=values["num_attention_heads"],
            num_kv_heads=values.get("num_key_value_heads") or values["num_attention_heads"],
            mlp_width=values["intermediate_size"],
            norm_eps=values.get("rms_norm_eps", 1e-5),
            rotary_theta=float(rotary["rope_theta"]),
            swin_norm=values.get("swin_norm", False),
        ),
    )


def _chameleon(*, swin_norm: bool, **values: Any) -> DecoderConfig:
    placement = "after" if swin_norm else "before"
    return DecoderConfig(**values, **CHAMELEON_PARTS, norm_placement=placement, init_std=0.02)
