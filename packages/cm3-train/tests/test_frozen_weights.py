import pytest
import torch
from torch import nn

from cm3_train.frozen_weights import KEY, FrozenWeights


def half_frozen(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model


def test_out_and_back():
    model = half_frozen()
    frozen, checkpoint = FrozenWeights(model), {"state_dict": model.state_dict()}
    frozen.leave_out(model, checkpoint)
    assert set(checkpoint["state_dict"]) == {"1.weight", "1.bias"}
    frozen.put_back(model, checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(model[0].weight, half_frozen()[0].weight)


def test_every_name_of_a_shared_weight_is_left_out():
    model = half_frozen()
    holder = nn.ModuleDict({"model": model, "again": nn.Sequential(model[0])})
    checkpoint = {"state_dict": holder.state_dict()}
    FrozenWeights(model).leave_out(holder, checkpoint)
    assert set(checkpoint["state_dict"]) == {"model.1.weight", "model.1.bias"}


@pytest.mark.parametrize("change", ["number", "dtype", "name"])
def test_the_hash_is_of_numbers_types_and_names(change):
    checkpoint = {"state_dict": {}, KEY: FrozenWeights(half_frozen()).sha256}
    other = half_frozen()
    if change == "number":
        other[0].bias.data[0] += 1e-4
    elif change == "dtype":
        other.bfloat16()
    else:
        other = nn.ModuleDict({"first": other[0], "1": other[1]})
    with pytest.raises(ValueError, match="frozen weights: wanted those .*, got others"):
        FrozenWeights(other).put_back(other, checkpoint)
    with pytest.raises(ValueError, match="wanted those that the run began with, none"):
        FrozenWeights(other).put_back(other, {"state_dict": {}})


def test_a_model_that_is_trained_whole_has_plain_checkpoints():
    model = nn.Linear(2, 2)
    frozen, checkpoint = FrozenWeights(model), {"state_dict": model.state_dict()}
    frozen.leave_out(model, checkpoint)
    frozen.put_back(model, checkpoint)
    assert not frozen and set(checkpoint) == {"state_dict"} and len(checkpoint["state_dict"]) == 2
