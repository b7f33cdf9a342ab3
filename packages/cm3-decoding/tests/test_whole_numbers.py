import numpy as np
import pytest
import torch

from cm3_decoding.whole_numbers import whole, whole_numbers


@pytest.mark.parametrize("value", [5, np.int8(5), np.uint64(5), torch.tensor(5), torch.tensor([5])])
def test_whole_numbers_of_any_kind_become_ints(value):
    assert whole("n", value) == 5
    assert type(whole("n", value)) is int
    assert whole_numbers("n", value) == (5,)


@pytest.mark.parametrize("value", [5.0, "5", None, np.float32(5), torch.tensor(5.0), [5], 1j])
def test_others_are_named(value):
    with pytest.raises(ValueError, match="^n: wanted a whole number, got"):
        whole("n", value)


def test_the_bound_is_named():
    assert whole("n", 0, 0) == 0
    with pytest.raises(ValueError, match="^n: wanted a whole number of at least 1, got 0"):
        whole("n", 0, 1)
