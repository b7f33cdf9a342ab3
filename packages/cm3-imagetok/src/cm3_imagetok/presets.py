"""Shapes with a name.

``VQGANConfig()`` itself is CM3Leon's: 256 pixels to 32 x 32 codes of 8192.
"""

from __future__ import annotations

from cm3_imagetok.vqgan import VQGANConfig

PRESETS: dict[str, VQGANConfig] = {
    # paper 2.1: 256 x 256 pixels -> 1024 codes out of 8192
    "cm3leon-256": VQGANConfig(),
    # 64 pixels -> 8 x 8 codes; trains on two CPU cores in minutes
    "tiny-64": VQGANConfig(
        image_size=64,
        patch_size=4,
        channels=48,
        channel_multipliers=(1, 2),
        num_res_blocks=1,
        norm_groups=16,
        z_channels=128,
        embed_dim=32,
        num_codes=512,
        mid_attention=False,
        quantizer="ema",
    ),
}
"""Name -> shape."""
