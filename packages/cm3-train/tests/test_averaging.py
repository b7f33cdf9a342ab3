import torch
from torch import nn

from cm3_train import average_weights


def test_the_mean_follows_the_formula_and_buffers_are_copied():
    torch.manual_seed(0)
    model, averaged = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    mean = averaged.weight.detach().clone()
    for step in range(1, 40):
        with torch.no_grad():
            model.weight.normal_()
            model.running_mean.normal_()
        average_weights(averaged, model, step, 0.7)
        decay = min(0.7, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(averaged.weight.detach(), mean)
        assert torch.equal(averaged.running_mean, model.running_mean)
