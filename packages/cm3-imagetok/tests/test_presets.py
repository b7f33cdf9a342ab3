import torch

from cm3_imagetok import PRESETS, VQGAN


def test_every_preset_builds_and_has_its_grid():
    for config in PRESETS.values():
        with torch.device("meta"):
            model = VQGAN(config)
            codes = model.encode(torch.empty(1, 3, config.image_size, config.image_size))
        assert codes.shape == (1, config.grid_size, config.grid_size)
