import pytest
import torch

from cm3_train import CM3Module, OptimConfig


def test_without_averaging_the_model_is_exported(tiny):
    model = tiny.Model()
    exported = CM3Module(model, OptimConfig(), tiny.image_range).export_state()
    assert all(torch.equal(exported[name], value) for name, value in model.state_dict().items())
    exported["gain"].zero_()  # a copy
    assert model.gain.abs().sum() > 0


def test_optimizer_leaves_the_averaged_weights_alone(tiny):
    module = CM3Module(tiny.Model(), OptimConfig(name="muon", ema_decay=0.9), tiny.image_range)
    groups = module.configure_optimizers()["optimizer"].param_groups
    held = {id(p) for group in groups for p in group["params"]}
    assert held == {id(p) for p in module.model.parameters()}


def test_a_model_without_hidden_is_refused():
    with pytest.raises(TypeError, match="model: wanted methods hidden and head"):
        CM3Module(torch.nn.Linear(2, 2), OptimConfig(), (0, 1))
