"""What the tests share: a small VQGAN, saved too, and a folder of pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from cm3_imagetok import VQGAN, VQGANConfig, save_vqgan

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


@pytest.fixture
def model(tokenizer, tmp_path):
    save_vqgan(tokenizer, tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder
