"""A check of the promises that an `Encoder` makes, for encoders of your own.

Takes an implementation; raises an AssertionError that names the broken promise. The asserts do
nothing under `python -O`.
"""

import numpy as np
from PIL import Image

from cm3_retrieval.interface import Encoder


def check_encoder(encoder: Encoder) -> None:
    """Check shapes, types, lengths, independence of the batch, and repeatability.

    Raises:
        AssertionError: Names the broken promise.
    """
    assert isinstance(encoder.dim, int) and encoder.dim > 0, f"dim: got {encoder.dim!r}"
    identity = encoder.encoder_id
    assert isinstance(identity, str) and identity, f"encoder_id: got {identity!r}"
    assert encoder.encoder_id == identity, "encoder_id changes from one call to the next"

    texts = ["a red apple", "", "two words", "word " * 1000, "<end_of_text> Größe 大きい"]
    vectors = encoder.encode_texts(texts)
    _check_vectors("encode_texts", vectors, len(texts), encoder.dim)
    assert not np.allclose(vectors[0], vectors[2], atol=1e-4), "two texts have one vector"
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    assert np.allclose(vectors, alone, atol=1e-4), "a text's vector depends on its batch"
    assert np.array_equal(vectors, encoder.encode_texts(texts)), "encode_texts does not repeat"
    _check_vectors("encode_texts", encoder.encode_texts([]), 0, encoder.dim)

    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    wide = Image.fromarray(rng.integers(0, 256, (20, 70, 3), dtype=np.uint8))
    pictures = [array, wide, wide.convert("L"), Image.new("RGB", (5, 9), "red")]
    vectors = encoder.encode_images(pictures)
    _check_vectors("encode_images", vectors, len(pictures), encoder.dim)
    assert not np.allclose(vectors[0], vectors[3], atol=1e-4), "two pictures have one vector"
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures])
    assert np.allclose(vectors, alone, atol=1e-4), "a picture's vector depends on its batch"
    as_image = encoder.encode_images([Image.fromarray(array)])
    assert np.allclose(vectors[:1], as_image, atol=1e-4), "array and PIL image differ"
    assert np.array_equal(vectors, encoder.encode_images(pictures)), "encode_images does not repeat"
    _check_vectors("encode_images", encoder.encode_images([]), 0, encoder.dim)


def _check_vectors(name: str, vectors: np.ndarray, count: int, dim: int) -> None:
    assert isinstance(vectors, np.ndarray), f"{name}: wanted an array, got {type(vectors).__name__}"
    assert vectors.dtype == np.float32, f"{name}: wanted float32, got {vectors.dtype}"
    assert vectors.shape == (count, dim), f"{name}: wanted {(count, dim)}, got {vectors.shape}"
    assert np.isfinite(vectors).all(), f"{name}: wanted finite numbers"
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.allclose(lengths, 1, atol=1e-4), f"{name}: wanted rows of length 1, got {lengths}"
