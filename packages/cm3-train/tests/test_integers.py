import numpy as np
import pytest
from hypothesis import given, strategies as st

from cm3_train.integers import UINT16, integer, integers


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_integer_of_64_bits_is_taken(value):
    assert integer(value, "x") == integer(np.int64(value), "x") == value
    assert integers([value], "x").tolist() == [value]


@given(st.one_of(st.floats(), st.booleans(), st.text(), st.none(), st.complex_numbers()))
def test_nothing_else_is(value):
    with pytest.raises(ValueError, match="x: wanted an integer"):
        integer(value, "x")
    with pytest.raises(ValueError, match="x: wanted a flat list of ints"):
        integers([value], "x")


@pytest.mark.parametrize("value", [-1, 65536, np.int64(2**40)])
def test_the_limits_are_named(value):
    with pytest.raises(ValueError, match=rf"x: wanted 0\.\.65535, got {value}"):
        integer(value, "x", UINT16)
    with pytest.raises(ValueError, match=r"x: wanted 0\.\.65535"):
        integers([3, value], "x", UINT16)


def test_none_at_all_are_integers_too():
    assert integers([], "x").dtype == integers(np.empty(0), "x").dtype == np.int64
