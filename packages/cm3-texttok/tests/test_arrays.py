import numpy as np
import pytest

from cm3_texttok.arrays import integer_array, ranges, require


@pytest.mark.parametrize("values", [[1, 2], (1, 2), np.array([1, 2], np.uint16), range(1, 3)])
def test_integers_of_any_kind_become_int64(values):
    array = integer_array(values, "ids")
    assert array.dtype == np.int64
    assert array.tolist() == [1, 2]


def test_empty_list_is_an_integer_array():
    assert integer_array([], "ids").dtype == np.int64


@pytest.mark.parametrize("values", [[1.0], [True], ["a"], [None]])
def test_other_values_are_named(values):
    with pytest.raises(TypeError, match="codes: wanted integers"):
        integer_array(values, "codes")


def test_require_names_the_first_invalid_position():
    values = np.array([3, 9, 8])
    require(values > 0, values, "ids", "more")
    with pytest.raises(ValueError, match=r"^ids: at position 1 wanted a low id, got 9$"):
        require(values < 5, values, "ids", "a low id")
    with pytest.raises(ValueError, match="position 11 "):
        require(values < 5, values, "ids", "a low id", start=10)
    with pytest.raises(ValueError, match=r"position \(1, 0\) "):
        require(values.reshape(3, 1) < 5, values.reshape(3, 1), "ids", "a low id")


def test_ranges_are_the_runs_of_true():
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 9, 50):
        for share in (0, 0.3, 0.7, 1):
            chosen = rng.random(size) < share
            found = ranges(chosen)
            again = np.zeros(size, bool)
            for start, stop in found:
                assert start < stop
                again[start:stop] = True
            assert (again == chosen).all()
            assert all(b[0] > a[1] for a, b in zip(found, found[1:], strict=False))
