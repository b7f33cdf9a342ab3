import numpy as np
import pytest

from cm3_retrieval.index.approximate import build_approximate
from cm3_retrieval.index.config import IndexConfig
from cm3_retrieval.index.plan import (
    TIERS,
    expected_bytes,
    holds_full_vectors,
    open_factory,
    plan_index,
)


@pytest.mark.parametrize("dim", [4, 16, 100, 384, 512, 768, 1024])
def test_every_tier_opens_at_every_usual_length(dim):
    for tier in TIERS:
        plan = plan_index(tier.up_to_rows, dim)
        index = open_factory(plan.factory, dim)
        assert index.d == dim
        assert plan.rescore == (0 if plan.factory == "Flat" else 16)


def test_memory_grows_with_rows_within_a_tier_and_stays_below_the_vectors_beyond_flat():
    least = 1
    for tier in TIERS:
        few, many = (expected_bytes(rows, 512) for rows in (least, tier.up_to_rows))
        assert all(few[name] < many[name] for name in ("memory", "disk", "build"))
        raw = 4 * 512 * tier.up_to_rows
        assert (many["memory"] < raw / 5) == (tier.factory != "Flat")
        assert many["build"] < (1.5 if tier.factory != "Flat" else 2.1) * raw
        least = tier.up_to_rows + 1


@pytest.mark.parametrize(
    "factory", ["Flat", "IVF16,PQ8x4fs", "IVF16,SQ8", "HNSW16", "PCAR16,IVF16,PQ8"]
)
def test_expected_bytes_are_those_of_the_file(unit_vectors, factory):
    import faiss

    vectors = unit_vectors(5000, 32)
    if factory == "Flat":
        size = 4 * 5000 * 32
    else:
        built = build_approximate(vectors, np.arange(5000), IndexConfig(factory=factory, rescore=0))
        size = faiss.serialize_index(built.index).nbytes
    expected = expected_bytes(5000, 32, IndexConfig(factory=factory, rescore=0))["disk"]
    assert 0.8 < size / expected < 1.4


def test_what_is_given_stays():
    plan = plan_index(10**6, 512, IndexConfig(factory="IVF64,SQ8", nprobe=999, rescore=3))
    assert (plan.factory, plan.nprobe, plan.rescore) == ("IVF64,SQ8", 64, 3)
    assert plan_index(100, 8).factory == "Flat"
    assert plan_index(10**6, 512, IndexConfig(factory="Flat")).factory == "Flat"


@pytest.mark.parametrize(
    ("factory", "full"),
    [
        ("Flat", True),
        ("IVF16,Flat", True),
        ("IVF16_HNSW8,Flat", True),
        ("HNSW16", True),
        ("HNSW16,Flat", True),
        ("PCA8,Flat", False),
        ("PCAR8,IVF16,Flat", False),
        ("PCAR8,HNSW16", False),
        ("RR16,Flat", False),
        ("HNSW16_SQ8", False),
        ("HNSW16,SQ8", False),
        ("PQ8", False),
        ("IVF16,SQ8", False),
    ],
)
def test_full_vectors_are_those_that_come_back(unit_vectors, factory, full):
    vectors = unit_vectors(1000, 32)
    assert holds_full_vectors(factory) == full
    config = IndexConfig(factory=factory, nprobe=16)
    index = build_approximate(vectors, np.arange(1000), config)
    assert (index.vectors is None) == full  # else they are kept beside it, to rescore
    np.testing.assert_array_equal(index.vectors_at(np.arange(1000)), vectors)
    assert (index.search(vectors, 1)[1][:, 0] == np.arange(1000)).mean() > 0.8


def test_an_index_of_distances_is_refused():
    with pytest.raises(ValueError, match="factory: wanted an index for inner products, .*HNSW8_PQ"):
        open_factory("HNSW8_PQ8", 32)


def test_every_length_gets_pieces_that_tell_something():
    """514 = 2 * 257 once got two pieces, of 257 numbers each."""
    for dim in range(8, 2049):
        factory = plan_index(10**6, dim).factory
        pieces = int(factory.partition("PQ")[2].removesuffix("x4fs"))
        assert dim % pieces == 0 and dim / pieces <= 6, dim


@pytest.mark.parametrize("dim", [34, 37, 51, 57])
def test_awkward_lengths_find_what_exact_search_finds(dim):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((20, dim))[rng.integers(20, size=2000)]
    vectors = vectors + 0.6 * rng.standard_normal((2000, dim))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    pieces = plan_index(10**6, dim).factory.partition("PQ")[2]
    config = IndexConfig(factory=f"IVF8,PQ{pieces}", nprobe=8)
    index = build_approximate(vectors, np.arange(2000), config)
    found = index.search(vectors[::20], 10)[1]
    true = np.argsort(-vectors[::20].dot(vectors.T), axis=1)[:, :10]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, true, strict=True)]) > 0.9


def test_wrong_configs():
    with pytest.raises(ValueError, match="the table of sizes ends at 1000000000"):
        plan_index(10**10, 512)
    with pytest.raises(ValueError, match="got 'IVFx,Nothing'"):
        open_factory("IVFx,Nothing", 8)
