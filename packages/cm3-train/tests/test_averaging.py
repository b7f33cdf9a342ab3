import copy

import pytest
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("cast", ["before", "after"])
def test_the_mean_of_weights_in_few_bits_moves_as_that_of_the_same_weights_in_many(dtype, cast):
    """With a decay of 0.9999, a bfloat16 mean would stay where it is from a few steps on."""
    model = nn.Linear(3, 2)
    if cast == "before":
        model.to(dtype)
    holder = nn.ModuleDict({"model": model, "averaged": averaged_model(model, 0.9999)})
    if cast == "after":  # as a trainer with "bf16-true" does with all that a module holds
        holder.to(dtype)
    model, averaged = holder["model"], holder["averaged"]
    exact = averaged_model(copy.deepcopy(model).double(), 0.9999)
    for step in range(200):
        with torch.no_grad():
            model.weight.fill_(1 if step < 100 else 1.01)
        averaged.update_parameters(model)
        exact.update_parameters(copy.deepcopy(model).double())
    mean = averaged.module.weight
    wanted = torch.float64 if (dtype, cast) == (torch.float64, "before") else torch.float32
    assert mean.dtype == wanted
    assert (mean > 1).all() and averaged.n_averaged == 200
    torch.testing.assert_close(mean.double(), exact.module.weight, rtol=1e-6, atol=0)


def test_its_state_goes_round_into_a_model_of_the_models_own_type():
    model = nn.Linear(3, 2).bfloat16()
    averaged = averaged_model(model, 0.9)
    averaged.update_parameters(model)
    other = averaged_model(nn.Linear(3, 2).bfloat16(), 0.9)
    other.load_state_dict(averaged.state_dict())
    assert torch.equal(other.module.weight, averaged.module.weight)
    model.load_state_dict(averaged.module.state_dict())
    assert model.weight.dtype == torch.bfloat16
