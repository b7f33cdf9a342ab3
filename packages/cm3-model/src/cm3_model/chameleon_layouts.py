"""Tensors of Chameleon's two published layouts, renamed and reordered to ours and back.

Takes tensors by name, gives tensors by name. "original" is Meta's, one file per shard of model
parallelism; "huggingface" has another order of a head's channels for the rotary turn. Ours is the
original's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cm3_model.checkpoint import CheckpointError
from cm3_model.config import DecoderConfig
from cm3_model.foreign_files import Weights

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


def from_original(theirs: Weights, config: DecoderConfig) -> Weights:
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


def to_original(ours: Weights, config: DecoderConfig) -> Weights:
    """Rename our tensors to the original's; query and key norms keep one row per head."""
    theirs = {name: ours[mine] for mine, name, _ in _TOP}
    pairs = torch.arange(0, config.head_width, 2).float()
    theirs["rope.freqs"] = config.rotary_theta ** (-pairs / config.head_width)
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


def from_huggingface(theirs: Weights, config: DecoderConfig) -> Weights:
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
    return from_original(old, config) | rest


def to_huggingface(ours: Weights, config: DecoderConfig) -> Weights:
    """Rename our tensors to Hugging Face's, in their rotary order."""
    old = to_original(ours, config)
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


def merge(shards: Sequence[Weights]) -> Weights:
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


def split(theirs: Weights, config: DecoderConfig, num_shards: int) -> list[Weights]:
    """Undo `merge`, from norms with one row per head."""
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
