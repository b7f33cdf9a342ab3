import numpy as np
import pytest

from cm3_decoding import SamplingConfig


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"sampler": "beam"}, "sampler"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"guidance_scale": -1.0}, "guidance_scale"),
        ({"image_guidance_scale": -1.0}, "image_guidance_scale"),
        ({"guidance_interval": (3, 2)}, "guidance_interval"),
        ({"guidance_interval": (-1, None)}, "guidance_interval"),
        ({"cd_alpha": 0.0}, "cd_alpha"),
        ({"cd_alpha": 1.1}, "cd_alpha"),
        ({"cd_k": 0}, "cd_k"),
        ({"top_k": 5.0}, "top_k"),
        ({"top_k": "5"}, "top_k"),
        ({"top_k": None}, "top_k"),
        ({"cd_k": 2.5}, "cd_k"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": None}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": "0.9"}, "top_p"),
        ({"guidance_scale": None}, "guidance_scale"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"image_guidance_scale": "1"}, "image_guidance_scale"),
        ({"cd_alpha": [0.3]}, "cd_alpha"),
        ({"guidance_interval": 3}, "guidance_interval"),
        ({"guidance_interval": (3,)}, "guidance_interval"),
        ({"guidance_interval": (0, 5.0)}, "guidance_interval"),
        ({"guidance_interval": (0.0, None)}, "guidance_interval"),
    ],
)
def test_a_bad_setting_is_refused_by_name(change, name):
    with pytest.raises(ValueError, match=f"^{name}: wanted"):
        SamplingConfig(**change)


def test_numpys_numbers_and_lists_are_taken():
    config = SamplingConfig(
        top_k=np.int64(5), cd_k=np.uint8(3), temperature=np.float32(0.5), guidance_interval=[0, 9]
    )
    assert config == SamplingConfig(top_k=5, cd_k=3, temperature=0.5, guidance_interval=(0, 9))
    assert type(config.top_k) is int
    assert hash(config) == hash(SamplingConfig(**vars(config)))
