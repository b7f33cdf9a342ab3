import pytest

from cm3_retrieval import ClipTrainingConfig


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"image_size": 60}, "image_size: wanted a multiple of 32, got 60"),
        ({"text_width": 16}, "text_width: wanted a multiple of 32"),
        ({"steps": 0}, "steps: wanted at least 1, got 0"),
        ({"vision_layers": (1, 1)}, "vision_layers: wanted four"),
        ({"vision_width": 5}, "vision_width: wanted an even number"),
        ({"lr": 0.0}, "lr: wanted more than 0"),
    ],
)
def test_wrong_knobs(knobs, message):
    with pytest.raises(ValueError, match=message):
        ClipTrainingConfig(**knobs)
