import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from cm3_retrieval import ClipEncoder, document_vectors


def test_texts_are_what_open_clip_says(encoder, captions):
    ids = open_clip.SimpleTokenizer()(captions, encoder.model.context_length)
    with torch.no_grad():
        peer = encoder.model.encode_text(ids, normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_texts(captions), peer, atol=1e-5)


def test_pictures_are_what_open_clip_says(encoder, pictures):
    mean, std = np.array(open_clip.OPENAI_DATASET_MEAN), np.array(open_clip.OPENAI_DATASET_STD)
    scaled = ((pictures / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    with torch.no_grad():
        peer = encoder.model.encode_image(torch.from_numpy(scaled), normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_images(pictures), peer, atol=1e-5)
    as_images = [Image.fromarray(picture) for picture in pictures]
    np.testing.assert_allclose(encoder.encode_images(as_images), peer, atol=1e-5)


def test_batches_do_not_matter(clip_folder, encoder, captions, pictures):
    small = ClipEncoder.from_folder(clip_folder, batch_size=5)
    np.testing.assert_allclose(
        small.encode_texts(captions), encoder.encode_texts(captions), atol=1e-5
    )
    np.testing.assert_allclose(
        small.encode_images(pictures), encoder.encode_images(pictures), atol=1e-5
    )
    assert small.encoder_id == encoder.encoder_id
    with pytest.raises(ValueError, match="batch_size: wanted at least 1, got 0"):
        ClipEncoder.from_folder(clip_folder, batch_size=0)


def test_long_and_odd_texts_have_a_vector(encoder):
    vectors = encoder.encode_texts(["", " ", "x" * 1_000_000, "a b " * 250_000, "\x00", "😀"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_wrong_input(encoder):
    with pytest.raises(TypeError, match="wanted a sequence of strings, got one string"):
        encoder.encode_texts("a cat")
    with pytest.raises(TypeError, match=r"texts\[1\]: wanted a string, got int"):
        encoder.encode_texts(["a", 3])
    with pytest.raises(TypeError, match=r"images\[1\]: wanted a PIL image"):
        encoder.encode_images([Image.new("RGB", (3, 3)), "cat.png"])


def test_the_id_follows_the_weights(clip_folder, encoder):
    other = ClipEncoder.from_folder(clip_folder)
    with torch.no_grad():
        next(other.model.parameters()).view(-1)[0] += 1e-3
    assert other.encoder_id != encoder.encoder_id


def test_a_changed_folder_is_refused(tmp_path, clip_folder):
    for path in clip_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = next(tmp_path.glob("*.safetensors"))
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(ValueError, match="safetensors: damaged"):
        ClipEncoder.from_folder(tmp_path)


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
