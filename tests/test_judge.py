import pytest
import torch

from cm3leon.evaluation import judge


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_judge_that_learnt_nothing_but_nan_is_refused(monkeypatch, value):
    """Every comparison with NaN is false, so it would rank each wanted thing first."""
    monkeypatch.setattr(judge, "STEPS", 2)
    images = torch.zeros(4, 3, judge.SIZE, judge.SIZE)
    network = judge.new_network(2)
    judge.fit_network(network, images, torch.tensor([0, 1, 0, 1]))
    images[1, 0, 5, 5] = value
    with pytest.raises(FloatingPointError, match="judge: wanted finite weights"):
        judge.fit_network(network, images, torch.tensor([0, 1, 0, 1]))
