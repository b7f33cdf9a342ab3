import numpy as np
import pytest
from PIL import Image

from cm3_retrieval import MemoryBank, document_vectors, encode_documents, search_documents


def test_parts_may_be_missing_one_by_one(encoder, captions, pictures):
    texts, images = encoder.encode_texts(captions[:3]), encoder.encode_images(pictures[:3])
    both = encode_documents(
        encoder, [captions[0], None, captions[2]], [pictures[0], pictures[1], None]
    )
    wanted = [document_vectors(texts[:1], images[:1])[0], images[1], texts[2]]
    np.testing.assert_allclose(both, wanted, atol=1e-5)
    np.testing.assert_allclose(encode_documents(encoder, captions[:3]), texts, atol=1e-6)
    np.testing.assert_allclose(encode_documents(encoder, None, pictures[:3]), images, atol=1e-6)


def test_a_document_finds_itself_by_both_parts(encoder, captions, pictures):
    vectors = encode_documents(encoder, captions, pictures)
    bank = MemoryBank.build(np.arange(12), vectors, {}, encoder.encoder_id)
    for texts, images in ((captions, pictures), (captions, None), (None, pictures)):
        scores, keys = search_documents(bank, encoder, 12, texts=texts, images=images)
        query = encode_documents(encoder, texts, images)
        np.testing.assert_allclose(scores[:, 0], query.dot(vectors.T).max(axis=1), atol=1e-5)
    found = search_documents(bank, encoder, 1, texts=captions, images=pictures)[1]
    assert found[:, 0].tolist() == list(range(12))


def test_wrong_input(encoder, captions, pictures):
    with pytest.raises(ValueError, match="wanted at least one of them, of one length, got {}"):
        encode_documents(encoder)
    with pytest.raises(ValueError, match="'texts': 2, 'images': 3"):
        encode_documents(encoder, captions[:2], pictures[:3])
    with pytest.raises(ValueError, match="document 1: wanted a part"):
        encode_documents(encoder, ["a", None])
    bank = MemoryBank.build(np.arange(1), np.eye(1, 16, dtype=np.float32), {}, "other")
    with pytest.raises(ValueError, match="encoder: wanted the bank's, 'other'"):
        search_documents(bank, encoder, 1, texts=["a"])


@pytest.fixture
def small_bank(encoder, captions, pictures):
    vectors = encode_documents(encoder, captions, pictures)
    return MemoryBank.build(np.arange(12), vectors, {}, encoder.encoder_id)


@pytest.mark.parametrize(
    "text", ["", " ", "x" * 2**20, "word " * 2**18, "<end_of_text>", "\x00", "Größe 大きい 😀"]
)
def test_any_text_is_a_query(small_bank, encoder, text):
    scores, keys = search_documents(small_bank, encoder, 3, texts=[text])
    assert keys.shape == (1, 3) and np.isfinite(scores).all() and (abs(scores) <= 1.001).all()


def test_wrong_queries_are_one_clear_error(small_bank, encoder, tmp_path):
    """The table of the README, line by line."""
    dim = encoder.dim
    for query, message in (
        (np.full((1, dim), np.nan), "queries: wanted finite numbers, got NaN or infinity in row 0"),
        (np.full((1, dim), np.inf), "queries: wanted finite numbers"),
        (np.ones((1, dim + 1)), rf"queries: wanted shape \(N, {dim}\), got \(1, {dim + 1}\)"),
        (np.ones(dim), rf"queries: wanted shape \(N, {dim}\), got \({dim},\)"),
        (np.ones((1, dim), int), "queries: wanted floats, got int64"),
    ):
        with pytest.raises(ValueError, match=message):
            small_bank.search(query, 1)
    for k in (0, -1, 13):
        with pytest.raises(ValueError, match=f"k: wanted 1 to 12, the number of rows, got {k}"):
            search_documents(small_bank, encoder, k, texts=["a"])
    empty = MemoryBank.build(np.empty(0, int), np.empty((0, dim)), {}, encoder.encoder_id)
    with pytest.raises(ValueError, match="wanted at least one row to search, got an empty index"):
        search_documents(empty, encoder, 1, texts=["a"])
    path = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with Image.open(path) as cut:
        with pytest.raises(ValueError, match=r"images\[0\]: cannot be decoded"):
            search_documents(small_bank, encoder, 1, images=[cut])
    with pytest.raises(ValueError, match=r"images\[0\]: wanted 1 to 64000000 pixels"):
        search_documents(small_bank, encoder, 1, images=[Image.new("1", (8193, 8193))])
    none = search_documents(small_bank, encoder, 3, texts=[])
    assert none[0].shape == none[1].shape == (0, 3)


def test_document_vectors_average_directions(unit_vectors):
    texts, images = unit_vectors(5, 8), unit_vectors(5, 8, seed=1)
    both = document_vectors(3 * texts, 0.1 * images)  # lengths do not count
    for row in range(5):
        total = texts[row].astype(float) + images[row]
        np.testing.assert_allclose(both[row], total / np.sqrt((total**2).sum()), atol=1e-6)
    np.testing.assert_allclose(document_vectors(2 * texts, None), texts, atol=1e-6)
    np.testing.assert_allclose(document_vectors(None, images), images, atol=1e-6)
    some = texts.copy()
    some[2] = 0  # this document has no text
    np.testing.assert_allclose(document_vectors(some, images)[2], images[2], atol=1e-6)
    whole = [0, 1, 3, 4]
    np.testing.assert_allclose(document_vectors(some, images)[whole], both[whole], atol=1e-6)


def test_documents_without_direction_are_refused():
    ones = np.ones((2, 3))
    with pytest.raises(ValueError, match="at least one of them"):
        document_vectors(None, None)
    with pytest.raises(ValueError, match="wanted one shape"):
        document_vectors(ones, np.ones((2, 4)))
    with pytest.raises(ValueError, match="document 1: wanted a part that is not zero or NaN"):
        document_vectors(ones * [[1], [0]], None)
    with pytest.raises(ValueError, match="document 0"):
        document_vectors(ones, -ones)
    with pytest.raises(ValueError, match="document 0"):
        document_vectors(ones * np.nan, ones)


@pytest.mark.parametrize("size", [1e300, 3e38, 1e-300, 5e-324])
def test_the_length_of_a_part_does_not_count(size):
    parts = np.array([[3.0, 4.0], [1.0, 0.0]])
    np.testing.assert_allclose(
        document_vectors(parts * size, parts), document_vectors(parts, parts), atol=0.2
    )
    large = document_vectors(np.array([[size, 0.0]]), np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(large, [[0.5**0.5, 0.5**0.5]], atol=1e-6)
