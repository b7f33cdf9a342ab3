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
    ],
)
def test_a_bad_setting_is_refused_by_name(change, name):
    with pytest.raises(ValueError, match=f"^{name}: wanted"):
        SamplingConfig(**change)
