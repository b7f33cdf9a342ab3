import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save

from cm3_retrieval import ClipEncoder
from cm3_retrieval.clip.encoder import CONFIG_NAME, WEIGHTS_NAME
from cm3_retrieval.interface import ENCODER_COMPONENT
from cm3_retrieval.sealed_folder import read_folder, write_folder


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
    small = ClipEncoder.load(clip_folder, batch_size=5)
    np.testing.assert_allclose(
        small.encode_texts(captions), encoder.encode_texts(captions), atol=1e-5
    )
    np.testing.assert_allclose(
        small.encode_images(pictures), encoder.encode_images(pictures), atol=1e-5
    )
    assert small.encoder_id == encoder.encoder_id
    with pytest.raises(ValueError, match="batch_size: wanted at least 1, got 0"):
        ClipEncoder.load(clip_folder, batch_size=0)


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
    other = ClipEncoder.load(clip_folder)
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
        ClipEncoder.load(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, clip_folder, value):
    manifest, paths = read_folder(clip_folder, CONFIG_NAME, ENCODER_COMPONENT)
    weights = load_file(paths[WEIGHTS_NAME]) | {"logit_scale": torch.tensor(value)}
    contents = {WEIGHTS_NAME: lambda file: file.write(save(weights))}
    facts = {name: manifest[name] for name in ("name", "model")}
    write_folder(tmp_path, CONFIG_NAME, ENCODER_COMPONENT, contents, facts)
    with pytest.raises(ValueError, match=r"\.safetensors: logit_scale: wanted finite numbers"):
        ClipEncoder.load(tmp_path)
