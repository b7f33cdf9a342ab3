import numpy as np

from cm3_retrieval import RetrievalConfig
from cm3_retrieval.neighbours.table import KINDS


def test_a_narrow_pool_is_widened(world):
    """All but the farthest documents are excluded, so the first pool holds none that passes."""
    bank = world.make_bank()
    narrow = RetrievalConfig(max_relevance=0.0, duplicate_threshold=1.0, pool_size=4)
    wide = RetrievalConfig(max_relevance=0.0, duplicate_threshold=1.0, pool_size=world.count)
    a, b = world.make_table(bank, narrow), world.make_table(bank, wide)
    for kind in KINDS:
        assert (b.candidate_keys[kind] >= 0).any()
        np.testing.assert_array_equal(a.candidate_keys[kind], b.candidate_keys[kind])
