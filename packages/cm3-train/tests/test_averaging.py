import torch
from torch import nn

from cm3_train import averaged_model


def test_the_mean_follows_the_formula_and_buffers_are_copied():
    torch.manual_seed(0)
    model = nn.BatchNorm1d(3)
    averaged, mean = averaged_model(model, 0.7), torch.zeros(3)
    for step in range(40):
        with torch.no_grad():
            model.weight.normal_()
            model.running_mean.normal_()
        averaged.update_parameters(model)
        decay = min(0.7, (1 + step) / (10 + step)) if step else 0.0  # the first is taken whole
        mean = decay * mean + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(averaged.module.weight.detach(), mean)
        assert torch.equal(averaged.module.running_mean, model.running_mean)
    assert not any(p.requires_grad for p in averaged.parameters())
