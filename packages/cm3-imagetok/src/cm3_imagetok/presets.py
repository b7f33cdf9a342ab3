"""Named shapes: the paper's tokenizer, its published relatives, and small ones.

The published shapes are from the authors' configuration files: taming-transformers (Esser et al.,
arXiv 2012.09841), Chameleon (arXiv 2405.09818), LlamaGen (arXiv 2406.06525).
"""

from __future__ import annotations

from cm3_imagetok.config import VQGANConfig

PRESETS: dict[str, VQGANConfig] = {
    # paper 2.1: 256 x 256 pixels -> 1024 codes out of 8192
    "cm3leon-256": VQGANConfig(),
    # 512 pixels -> 32 x 32 codes; Anole has the same weights
    "chameleon-512": VQGANConfig(image_size=512, channel_multipliers=(1, 1, 2, 2, 4)),
    # 256 pixels -> 32 x 32 codes
    "taming-gumbel-f8": VQGANConfig(
        attention_resolutions=(32,), quantizer="gumbel", kl_weight=1e-8
    ),
    # 256 pixels -> 16 x 16 codes
    "taming-f16-16384": VQGANConfig(
        channel_multipliers=(1, 1, 2, 2, 4), attention_resolutions=(16,), num_codes=16384
    ),
    # 256 pixels -> 16 x 16 codes; also Janus's tokenizer
    "llamagen-vq16": VQGANConfig(
        channel_multipliers=(1, 1, 2, 2, 4),
        attention_resolutions=(16,),
        embed_dim=8,
        num_codes=16384,
        quantizer="normalised",
    ),
    # 256 pixels -> 32 x 32 codes
    "llamagen-vq8": VQGANConfig(
        channel_multipliers=(1, 2, 2, 4),
        attention_resolutions=(32,),
        embed_dim=8,
        num_codes=16384,
        quantizer="normalised",
    ),
    # 64 pixels -> 8 x 8 codes; trains on two CPU cores in minutes
    "tiny-64": VQGANConfig(
        image_size=64,
        patch_size=4,
        channels=32,
        channel_multipliers=(1, 2),
        num_res_blocks=1,
        norm_groups=16,
        z_channels=128,
        embed_dim=32,
        num_codes=1024,
        mid_attention=False,
        quantizer="ema",
    ),
    # 128 pixels -> 16 x 16 codes; trains with a discriminator on two CPU cores in tens of minutes
    "tiny-128": VQGANConfig(
        image_size=128,
        patch_size=4,
        channels=32,
        channel_multipliers=(1, 2),
        num_res_blocks=1,
        norm_groups=16,
        z_channels=128,
        embed_dim=32,
        num_codes=1024,
        mid_attention=False,
        quantizer="ema",
    ),
}
"""Shapes by name."""
