import numpy as np

from cm3_retrieval.digest import digest_of


def test_equal_values_have_one_digest_and_others_another():
    array = np.arange(6, dtype=np.int64)
    cases = [
        (array,), (array.reshape(2, 3),), (array.astype(np.int32),), (array, 1), (1, array),
        (None,), ({"a": 1, "b": 2},), ([1, 2],), (1, 2),
    ]  # fmt: skip
    digests = [digest_of(*case) for case in cases]
    assert len(set(digests)) == len(cases)
    assert digest_of({"b": 2, "a": 1}) == digest_of({"a": 1, "b": 2})
    strided = np.repeat(array, 2)[::2]
    assert digest_of(strided) == digest_of(array)
