"""The config files of Chameleon's two published layouts, to a `DecoderConfig` and back.

Takes and gives plain values: `params.json` of Meta's layout, `config.json` of transformers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cm3_model.config import CHAMELEON_PARTS, DecoderConfig
from cm3_model.foreign_files import Weights, check_meanings, guard, plain_rotary_theta

SAME_IN_BOTH: dict[str, tuple[object, ...]] = {
    "logit_scale": (1, None), "logits_scaling": (1, None), "residual_multiplier": (1, None),
    "embedding_multiplier": (1, None), "attention_multiplier": (None,),
    "norm_type": ("rms", "rms_norm", "rmsnorm", None),
    "use_qk_norm": (True, None), "qk_layernorm": (True, None),
}  # fmt: skip
"""What keys may say in either file that other decoders than Chameleon have."""


def to_hf_config(config: DecoderConfig) -> dict[str, Any]:
    """Return the `config.json` of transformers' Chameleon."""
    return {
        "architectures": ["ChameleonForConditionalGeneration"], "model_type": "chameleon",
        "vocab_size": config.vocab_size, "hidden_size": config.width,
        "intermediate_size": config.mlp_hidden, "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads, "num_key_value_heads": config.kv_heads,
        "max_position_embeddings": config.max_length, "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_theta},
        "hidden_act": "silu", "swin_norm": config.norm_placement == "after",
        "tie_word_embeddings": False,
    }  # fmt: skip


def to_params(config: DecoderConfig) -> dict[str, Any]:
    """Return what the original's own loader asks for, by its names."""
    # It makes the MLP a multiple of `multiple_of`, of at least 8/3 of the width, times a factor.
    wide = int(2 * 4 * config.width / 3)
    rounded = -(-wide // 256) * 256 == config.mlp_hidden
    return {
        "dim": config.width, "n_layers": config.num_layers, "n_heads": config.num_heads,
        "n_kv_heads": config.kv_heads, "vocab_size": config.vocab_size,
        "multiple_of": 256 if rounded else config.mlp_hidden,
        "ffn_dim_multiplier": None if rounded else min(1.0, config.mlp_hidden / wide),
        "norm_eps": config.norm_eps, "rope_theta": config.rotary_theta,
        "max_seq_len": config.max_length, "qk_normalization": True,
        "swin_norm": config.norm_placement == "after",
    }  # fmt: skip


def from_params(params: Mapping[str, Any], merged: Weights, folder: Path) -> DecoderConfig:
    """Read `params.json`; sizes that it leaves out come from the tensors, shards merged.

    Raises:
        CheckpointError: If it says what the decoder does not do.
    """
    values = params.get("model", params)
    flags = {"use_scaled_rope": (False, None), "qk_normalization": (True, None)}
    check_meanings(values, SAME_IN_BOTH | flags | {"rope_scaling_factor": (None, 1)}, folder)
    return _chameleon(
        vocab_size=merged["output.weight"].shape[0],
        max_length=values.get("max_seq_len", 4096),
        num_layers=values["n_layers"],
        width=values["dim"],
        num_heads=values["n_heads"],
        num_kv_heads=values.get("n_kv_heads") or values["n_heads"],
        mlp_width=merged["layers.0.feed_forward.w1.weight"].shape[0],
        norm_eps=values.get("norm_eps", 1e-5),
        rotary_theta=plain_rotary_theta(values, folder),
        swin_norm=values.get("swin_norm", False),
    )


def from_hf_config(values: Mapping[str, Any], folder: Path) -> DecoderConfig:
    """Read transformers' `config.json`; `folder` is for errors.

    Raises:
        CheckpointError: If it says what the decoder does not do, or lacks a size.
    """
    heads = values.get("num_attention_heads") or 1
    wanted = SAME_IN_BOTH | {
        "hidden_act": ("silu", "swish", None), "attention_bias": (False, None),
        "mlp_bias": (False, None), "tie_word_embeddings": (False, None),
        "head_dim": (values.get("hidden_size", 0) // heads, None),
        "partial_rotary_factor": (1, None), "sliding_window": (None,),
        "final_logit_softcapping": (None,), "attn_logit_softcapping": (None,),
    }  # fmt: skip
    guard(folder, lambda: check_meanings(values, wanted, folder))
    theta = guard(folder, lambda: plain_rotary_theta(values, folder))
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
            rotary_theta=theta,
            swin_norm=values.get("swin_norm", False),
        ),
    )


def _chameleon(*, swin_norm: object, **values: Any) -> DecoderConfig:
    if not isinstance(swin_norm, bool | None):
        raise ValueError(f"swin_norm: wanted true or false, got {swin_norm!r}")
    placement = "after" if swin_norm else "before"
    return DecoderConfig(**values, **CHAMELEON_PARTS, norm_placement=placement, init_std=0.02)
