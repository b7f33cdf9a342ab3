import pytest
import torch

from cm3_decoding.finite import FiniteCheck


def logits(bad=None, value=float("nan")):
    values = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    if bad is not None:
        values[bad, slice(None) if value == -float("inf") else 7] = value
    return values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_cpu_tells_at_once(value):
    check = FiniteCheck("cpu")
    check.see(logits().amax(-1), 0)
    with pytest.raises(FloatingPointError, match=r"in step 1, rows \[2\]"):
        check.see(logits(2, value).amax(-1), 1)


def test_infinities_that_cancel_are_seen():
    both = logits(0, float("inf"))
    both[0, 8] = -float("inf")
    with pytest.raises(FloatingPointError, match=r"rows \[0\]"):
        FiniteCheck("cpu").see(both.amax(-1), 0)


def test_an_id_that_cannot_come_is_no_fault():
    values = logits()
    values[:, :49] = -float("inf")
    FiniteCheck("cpu").see(values.amax(-1), 0)


def test_huge_numbers_are_numbers():
    check = FiniteCheck("cpu")
    check.see(torch.full((1, 40), 3e38).amax(-1), 0)  # their sum is not one
    check.report()


def test_an_accelerator_is_asked_seldom_and_the_first_bad_step_is_named(monkeypatch):
    check = FiniteCheck("cpu")
    monkeypatch.setattr(check, "_every", 4)
    check.see(logits().amax(-1), 0)
    check.see(logits(1).amax(-1), 1)
    check.see(logits(0).amax(-1), 2)
    with pytest.raises(FloatingPointError, match=r"in step 1, rows \[1\]"):
        check.see(logits().amax(-1), 3)
    check.see(logits(2).amax(-1), 4)
    with pytest.raises(FloatingPointError, match=r"in step 4, rows \[2\]"):
        check.report()
