import pytest
import torch

from cm3_train import CM3Module, OptimConfig


def test_averaged_weights_follow_by_hand(tiny):
    module = CM3Module(tiny.Model(), OptimConfig(ema_decay=0.3), tiny.image_range)
    kept = module.averaged.qkv.weight.clone()
    assert torch.equal(kept, module.model.qkv.weight)
    for step in range(1, 6):
        with torch.no_grad():
            module.model.qkv.weight += 1
        module._average(module.averaged)
        decay = min(0.3, (1 + step) / (10 + step))
        kept = decay * kept + (1 - decay) * module.model.qkv.weight.detach()
        assert torch.allclose(module.averaged.qkv.weight, kept, atol=1e-5)
    assert torch.allclose(module.export_state()["qkv.weight"], kept, atol=1e-5)


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
