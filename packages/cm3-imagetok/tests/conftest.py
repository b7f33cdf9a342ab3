"""A small VQGAN that the tests share."""

import pytest
import torch

from cm3_imagetok import VQGAN, VQGANConfig

TINY = VQGANConfig(
    image_size=16,
    patch_size=2,
    channels=8,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    norm_groups=4,
    z_channels=8,
    embed_dim=4,
    num_codes=16,
)


@pytest.fixture(params=["nearest", "normalised", "gumbel", "ema"])
def tokenizer(request: pytest.FixtureRequest) -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(VQGANConfig(**{**vars(TINY), "quantizer": request.param})).eval()


@pytest.fixture
def tiny() -> VQGANConfig:
    return TINY
