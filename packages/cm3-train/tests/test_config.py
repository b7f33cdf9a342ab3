import pytest

from cm3_train import OptimConfig


@pytest.mark.parametrize(
    "values",
    [
        {"name": "sgd"},
        {"schedule": "step"},
        {"lr": 0},
        {"betas": (0.9, 1.0)},
        {"ema_decay": 1.0},
        {"final_lr_share": 2},
        {"total_steps": 0},
        {"grad_clip": -1},
    ],
)
def test_config_names_the_parameter(values):
    with pytest.raises(ValueError, match=f"^{next(iter(values))}: wanted"):
        OptimConfig(**values)
