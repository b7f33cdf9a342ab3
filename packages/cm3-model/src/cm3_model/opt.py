"""OPT weights (arXiv 2205.01068) from a Hugging Face folder, without biases and learnt norms.

Takes a folder, gives a `Decoder`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from cm3_model.checkpoint import finish_replacement
from cm3_model.config import DecoderConfig
from cm3_model.foreign_files import (
    Weights,
    build,
    check_meanings,
    guard,
    read_json,
    read_safetensors,
)
from cm3_model.transformer import Decoder


def import_opt(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Decoder:
    """Read an OPT without biases and learnt norms from its Hugging Face folder, in eval mode.

    Raises:
        CheckpointError: If it has parts that the decoder lacks, or is damaged.
    """
    folder = Path(folder)
    finish_replacement(folder)
    values = read_json(folder / "config.json")
    wanted = {
        "model_type": ("opt",), "enable_bias": (False,), "layer_norm_elementwise_affine": (False,),
        "do_layer_norm_before": (True, None), "activation_function": ("relu", "gelu", None),
        "word_embed_proj_dim": (values.get("hidden_size"), None),
        "_remove_final_layer_norm": (False, None),
    }  # fmt: skip
    check_meanings(values, wanted, folder)
    config = guard(
        folder,
        lambda: DecoderConfig(
            vocab_size=values["vocab_size"],
            max_length=values["max_position_embeddings"],
            num_layers=values["num_hidden_layers"],
            width=values["hidden_size"],
            num_heads=values["num_attention_heads"],
            mlp_width=values["ffn_dim"],
            activation=values.get("activation_function") or "relu",
            tie_embeddings=values.get("tie_word_embeddings", True),
        ),
    )
    theirs = read_safetensors(folder)

    def rename() -> Weights:
        rest = {name.removeprefix("model."): value for name, value in theirs.items()}
        ours = {
            "token_embedding.weight": rest.pop("decoder.embed_tokens.weight"),
            # The first two rows are for padding.
            "position_embedding.weight": rest.pop("decoder.embed_positions.weight")[2:],
        }
        output = rest.pop("lm_head.weight", None)
        if not config.tie_embeddings:
            ours["output.weight"] = ours["token_embedding.weight"] if output is None else output
        for layer in range(config.num_layers):
            old, new = f"decoder.layers.{layer}.", f"blocks.{layer}."
            parts = [rest.pop(f"{old}self_attn.{part}_proj.weight") for part in "qkv"]
            ours[new + "attention.qkv.weight"] = torch.cat(parts)
            ours[new + "attention.out.weight"] = rest.pop(old + "self_attn.out_proj.weight")
            ours[new + "mlp.up.weight"] = rest.pop(old + "fc1.weight")
            ours[new + "mlp.down.weight"] = rest.pop(old + "fc2.weight")
        return ours | rest

    return build(config, guard(folder, rename), folder, device, dtype)
