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
