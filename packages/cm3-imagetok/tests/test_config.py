import pytest

from cm3_imagetok import VQGANConfig


def test_the_defaults_are_the_papers():
    config = VQGANConfig()
    assert (config.image_size, config.downsampling, config.num_codes) == (256, 8, 8192)
    assert config.grid_size**2 == 1024


def test_folded_pixels_count_as_downsampling(tiny):
    assert (tiny.downsampling, tiny.grid_size) == (4, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"quantizer": "best"},
        {"norm_groups": 3},
        {"image_size": 17},
        {"num_codes": 0},
    ],
)
def test_wrong_config_names_the_parameter(tiny, change):
    with pytest.raises(ValueError, match=next(iter(change))):
        VQGANConfig(**{**vars(tiny), **change})
