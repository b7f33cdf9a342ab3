import numpy as np
import pytest
from PIL import Image

from cm3_retrieval import IndexConfig, MemoryBank
from cm3_retrieval.bank.quality import measure_bank, save_histogram, score_histogram


def make_bank(vectors, **index) -> MemoryBank:
    keys = np.random.default_rng(5).permutation(10_000)[: len(vectors)]
    return MemoryBank.build(keys, vectors, {}, "e", IndexConfig(**index))


def test_an_exact_bank_finds_all(unit_vectors):
    figures, nearest = measure_bank(make_bank(unit_vectors(200, 8)), k=5)
    assert figures["recall"] == 1 and figures["duplicates"] == 0 and figures["queries"] == 200
    assert nearest.shape == (200,) and figures["nearest_mean"] == pytest.approx(nearest.mean())


def test_recall_is_the_share_that_brute_force_finds_too(unit_vectors):
    vectors = unit_vectors(600, 16)
    bank = make_bank(vectors, factory="IVF16,Flat", nprobe=2)
    figures, nearest = measure_bank(bank, k=4, queries=600)
    likeness = vectors.dot(vectors.T)
    np.fill_diagonal(likeness, -2)
    found = bank.search(vectors, 5)[1]
    hits = 0
    for row, key in enumerate(bank.keys):
        true = set(bank.keys[np.argsort(-likeness[row])[:4]].tolist())
        hits += len(true & set([other for other in found[row].tolist() if other != key][:4]))
    assert 0.3 < figures["recall"] < 0.99
    assert figures["recall"] == pytest.approx(hits / 2400)
    np.testing.assert_allclose(np.sort(nearest), np.sort(likeness.max(axis=1)), atol=1e-5)


def test_duplicates_are_counted(unit_vectors):
    vectors = unit_vectors(100, 32)
    figures, nearest = measure_bank(make_bank(np.concatenate([vectors, vectors[:25]])))
    assert figures["duplicates"] == pytest.approx(50 / 125)
    assert (nearest > 0.999).sum() == 50
    assert measure_bank(make_bank(vectors), queries=7)[0]["queries"] == 7


def clusters(count: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.random.default_rng(9).standard_normal((20, dim))[rng.integers(20, size=count)]
    rows = rows + 0.5 * rng.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("factory", ["PQ4", "IVF8,PQ4x4fs", "SQ8", "PCA8,Flat", "HNSW8_SQ8"])
def test_an_index_is_never_compared_with_itself(factory):
    """PQ8 without rescoring had recall 1.0 among what it had made of the vectors, really 0.061."""
    vectors = clusters(1000, 32)
    bank = make_bank(vectors, factory=factory, rescore=0)
    with pytest.raises(ValueError, match=r"vectors: wanted the documents' own, \(1000, 32\)"):
        measure_bank(bank)
    figures, nearest = measure_bank(bank, k=5, vectors=vectors)
    likeness = vectors.dot(vectors.T)
    np.fill_diagonal(likeness, -2)
    found = bank.search(vectors, 6)[1]
    hits = 0
    for row, key in enumerate(bank.keys):
        true = set(bank.keys[np.argsort(-likeness[row])[:5]].tolist())
        hits += len(true & set([other for other in found[row].tolist() if other != key][:5]))
    assert figures["recall"] == pytest.approx(hits / 5000) and figures["recall"] < 0.99
    assert nearest.mean() == pytest.approx(likeness.max(axis=1).mean(), abs=1e-5)
    rescored = make_bank(vectors, factory=factory)
    assert measure_bank(rescored, k=5)[0]["recall"] > figures["recall"]


def test_queries_that_are_no_documents():
    vectors, asked = clusters(1000, 32), clusters(90, 32, seed=4) * 3
    bank = make_bank(vectors, factory="IVF32,Flat", nprobe=1)
    figures, _ = measure_bank(bank, k=5, asked={"text": asked[:60], "image": asked[60:]})
    for kind, queries in (("text", asked[:60]), ("image", asked[60:])):
        true = bank.keys[np.argsort(-queries.dot(vectors.T), axis=1)[:, :5]]
        found = bank.search(queries, 5)[1]
        same = [len(set(a) & set(b)) / 5 for a, b in zip(found, true, strict=True)]
        assert figures[f"recall_{kind}"] == pytest.approx(np.mean(same))
    assert figures["recall_text"] < figures["recall"] + 0.1 < 1.1
    assert "recall_text" not in measure_bank(bank, asked={"text": asked[:0]})[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"vectors": np.ones((3, 4))}, "vectors: wanted 5, one a document, got 3"),
        ({"vectors": np.ones((5, 4))}, "vectors: wanted rows of length 1, got 2.0"),
        ({"vectors": np.ones((5, 3))}, r"vectors: wanted shape \(N, 4\), got \(5, 3\)"),
        ({"asked": {"text": np.ones((5, 3))}}, r"asked\['text'\]: wanted shape"),
        ({"k": 0}, "k: wanted at least 1, got 0"),
        ({"queries": 2.5}, "queries: wanted an integer"),
    ],
)
def test_wrong_input(unit_vectors, wrong, message):
    with pytest.raises(ValueError, match=message):
        measure_bank(make_bank(unit_vectors(5, 4)), **wrong)


def test_small_banks(unit_vectors):
    assert measure_bank(make_bank(unit_vectors(2, 4)), k=10)[0]["k"] == 1
    with pytest.raises(ValueError, match="bank: wanted at least 2 documents, got 1"):
        measure_bank(make_bank(unit_vectors(1, 4)))


def test_the_histogram_has_a_bar_as_high_as_its_count(tmp_path):
    scores = np.repeat([0.0, 0.5, 1.0], [10, 5, 20])
    image = np.asarray(score_histogram(scores, bins=3))
    blue = (image == (0x44, 0x77, 0xAA)).all(axis=2)
    heights = [blue[:, 40 + third * 186 + 90].sum() for third in range(3)]
    assert heights[2] > 200
    np.testing.assert_allclose(np.array(heights) / heights[2], [0.5, 0.25, 1], atol=0.02)
    save_histogram(scores, tmp_path / "scores.png")
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "scores.png")), score_histogram(scores, bins=40)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["scores.png"]
