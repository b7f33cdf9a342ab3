import numpy as np
import pytest

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
    assert search_documents(bank, encoder, 1, texts=captions, images=pictures)[1][
        :, 0
    ].tolist() == (list(range(12)))


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
