import faiss
import numpy as np
import pytest

from cm3_retrieval import IndexConfig, MemoryBank
from cm3_retrieval.bank.quality import measure_bank
from cm3_retrieval.index.approximate import build_approximate, set_search_width

COUNT, DIM = 4000, 32


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def world():
    """Documents of low rank, and queries of two kinds, on two sides of them."""
    rng = np.random.default_rng(0)
    basis, sides = rng.standard_normal((8, DIM)), 2 * rng.standard_normal((2, DIM))

    def parts(count: int) -> list[np.ndarray]:
        shown = rng.standard_normal((count, 8))
        noise = 0.7 * rng.standard_normal((2, count, 8))
        return [unit((shown + one) @ basis + side) for one, side in zip(noise, sides, strict=True)]

    documents = unit(sum(parts(COUNT)))
    texts, pictures = parts(400)
    return documents, {"text": texts[:200], "image": pictures[:200]}, {"text": texts[200:]}


@pytest.mark.parametrize("factory", ["IVF64,PQ8x4fs", "IVF64_HNSW8,PQ8", "IVF64,Flat"])
def test_both_kinds_of_query_reach_the_recall_and_less_would_not(world, tmp_path, factory):
    documents, asked, fresh = world
    config = IndexConfig(factory=factory, nprobe=1)
    bank = MemoryBank.build(np.arange(COUNT), documents, {}, "e", config)
    before = measure_bank(bank, asked=asked)[0]
    assert min(before["recall_text"], before["recall_image"]) < 0.8
    found = bank.tune(asked, recall=0.95)
    after = measure_bank(bank, asked=asked)[0]
    for kind in asked:
        assert found[f"recall_{kind}"] == pytest.approx(after[f"recall_{kind}"], abs=0.002)
        assert after[f"recall_{kind}"] >= 0.949
    assert measure_bank(bank, asked=fresh)[0]["recall_text"] > 0.9
    assert (bank.config.nprobe, bank.config.rescore) == (found["nprobe"], found["rescore"])
    assert bank.tune(asked, recall=0.95) == found  # where it starts does not count
    bank.save(tmp_path)
    assert MemoryBank.load(tmp_path).config == bank.config
    half = IndexConfig(
        factory=factory, nprobe=int(found["nprobe"]) // 2, rescore=bank.config.rescore and 64
    )
    narrow = MemoryBank.build(np.arange(COUNT), documents, {}, "e", half)
    figures = measure_bank(narrow, asked=asked)[0]
    assert min(figures["recall_text"], figures["recall_image"]) < 0.95


def test_what_cannot_be_reached_is_searched_whole(world):
    documents, asked, _ = world
    config = IndexConfig(factory="IVF16,PQ2x4fs")
    bank = MemoryBank.build(np.arange(COUNT), documents, {}, "e", config)
    found = bank.tune(asked, recall=1.0)
    assert found["nprobe"] == 16 and found["rescore"] == 64 and found["recall_text"] < 1


def test_without_cells_nothing_changes(world):
    documents, asked, _ = world
    for factory in ("Flat", "HNSW8"):
        bank = MemoryBank.build(
            np.arange(300), documents[:300], {}, "e", IndexConfig(factory=factory)
        )
        before = bank.config
        assert bank.tune(asked) == {} and bank.config == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"asked": {}}, "asked: wanted queries of at least one kind"),
        ({"asked": {"text": np.empty((0, DIM))}}, "asked: wanted queries of at least one kind"),
        ({"asked": {"text": np.ones((2, 3))}}, r"asked\['text'\]: wanted shape"),
        ({"k": 301}, "k: wanted 1 to 300, the number of documents, got 301"),
        ({"recall": 0}, "recall: wanted more than 0 and at most 1, got 0"),
    ],
)
def test_wrong_input(world, wrong, message):
    documents, asked, _ = world
    bank = MemoryBank.build(
        np.arange(300), documents[:300], {}, "e", IndexConfig(factory="IVF4,SQ8")
    )
    with pytest.raises(ValueError, match=message):
        bank.tune(**{"asked": asked, **wrong})
    short = IndexConfig(factory="IVF4,SQ8", rescore=0)
    bank = MemoryBank.build(np.arange(300), documents[:300], {}, "e", short)
    with pytest.raises(ValueError, match="bank: wanted one that keeps the documents' vectors"):
        bank.tune(asked)


def test_the_graph_over_the_cells_finds_nearly_all_of_them(unit_vectors):
    """At FAISS's own width of 16 a query that visits 128 cells visited other ones."""
    vectors = unit_vectors(20_000, DIM)
    config = IndexConfig(factory="IVF1024_HNSW8,SQ8", nprobe=128, train_rows=10_000)
    index = build_approximate(vectors, np.arange(20_000), config)
    ivf = faiss.try_extract_index_ivf(index.index)
    centres = ivf.quantizer.reconstruct_n(0, ivf.nlist)
    queries = unit_vectors(100, DIM, seed=3)
    true = np.argsort(-queries.dot(centres.T), axis=1)[:, :128]

    def share() -> float:
        found = ivf.quantizer.search(queries, 128)[1]
        return np.mean([len(set(a) & set(b)) / 128 for a, b in zip(found, true, strict=True)])

    assert share() > 0.99
    again = faiss.deserialize_index(faiss.serialize_index(index.index))
    set_search_width(again, config)
    ivf = faiss.try_extract_index_ivf(again)
    assert share() > 0.99
    faiss.downcast_index(ivf.quantizer).hnsw.efSearch = 16
    assert share() < 0.9
