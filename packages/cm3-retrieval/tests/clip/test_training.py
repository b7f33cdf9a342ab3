from dataclasses import replace

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss
from torch.nn import functional as F

from cm3_retrieval import ClipTrainingConfig, train_clip
from cm3_retrieval.clip.training import _as_input, _augmented, _contrast, _schedule, _vectors


def coloured_shapes(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Squares of 4 colours in 4 corners: 16 captions."""
    rng = np.random.default_rng(seed)
    colours = {"red": (220, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 220), "black": (0, 0, 0)}
    corners = {"top left": (0, 0), "top right": (0, 1), "low left": (1, 0), "low right": (1, 1)}
    captions, pictures = [], np.full((count, 32, 32, 3), 255, np.uint8)
    for picture in pictures:
        colour, corner = rng.choice(list(colours)), rng.choice(list(corners))
        y, x = (4 + 16 * place for place in corners[corner])
        size = rng.integers(7, 10)
        picture[y : y + size, x : x + size] = colours[colour]
        captions.append(f"{colour} square, {corner}")
    return captions, pictures


@pytest.mark.slow
def test_it_learns_to_tell_unseen_pictures_apart(tmp_path):
    captions, pictures = coloured_shapes(256, seed=0)
    names = sorted(set(captions))
    config = ClipTrainingConfig(
        image_size=32, vision_width=8, text_width=32, text_layers=1, embed_dim=32, steps=120,
        batch_size=48, lr=2e-3, max_shift=2, context_length=12,
    )  # fmt: skip
    losses: list[float] = []
    groups = [names.index(caption) for caption in captions]
    encoder = train_clip(
        captions, pictures, config, groups=groups, folder=tmp_path,
        progress=lambda step, steps, loss: losses.append(loss),
    )  # fmt: skip
    assert len(losses) == 120 and losses[-1] < 0.5 * losses[0]
    unseen_captions, unseen = coloured_shapes(64, seed=1)
    colours = ["red", "green", "blue", "black"]
    texts = encoder.encode_texts([f"{colour} square, top left" for colour in colours])
    best = encoder.encode_images(unseen).dot(texts.T).argmax(axis=1)
    right = [colours[b] == c.split()[0] for b, c in zip(best, unseen_captions, strict=True)]
    assert np.mean(right) > 0.7  # chance is 0.25


def test_two_runs_write_the_same_bytes(tmp_path, captions, pictures, tiny, clip_folder):
    state = torch.random.get_rng_state()
    train_clip(captions, pictures, tiny, folder=tmp_path)
    assert torch.equal(state, torch.random.get_rng_state())
    first = {path.name: path.read_bytes() for path in clip_folder.iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    encoder = train_clip(captions, pictures, replace(tiny, seed=1), folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert {path.name for path in tmp_path.iterdir()} != set(first)
    assert encoder.dim == tiny.embed_dim


def test_the_loss_is_open_clips_when_every_row_is_its_own_group(encoder, captions, pictures):
    ids, inputs = encoder._tokenizer(captions), _as_input(pictures)
    with torch.no_grad():
        images, texts, scale = _vectors(encoder.model, inputs, ids)
        ours = _contrast(scale * images @ texts.T, torch.arange(12))
        image = encoder.model.encode_image(inputs, normalize=True)
        text = encoder.model.encode_text(ids, normalize=True)
        peer = ClipLoss()(image, text, encoder.model.logit_scale.exp())
    torch.testing.assert_close(ours, peer)


def test_rows_of_one_group_are_no_negatives():
    rng = np.random.default_rng(0)
    logits, groups = 3 * rng.standard_normal((12, 12)), np.array([0, 0, 1, 2] * 3)
    total = 0.0
    for i in range(12):
        others = [j for j in range(12) if j == i or groups[j] != groups[i]]
        total += np.log(np.exp(logits[i, others]).sum()) - logits[i, i]
        total += np.log(np.exp(logits[others, i]).sum()) - logits[i, i]
    ours = _contrast(torch.from_numpy(logits), torch.from_numpy(groups))
    assert float(ours) == pytest.approx(total / 24)


@pytest.mark.slow
def test_likeness_puts_the_same_thing_before_the_same_colour(tmp_path):
    """Shapes in colours: a plain CLIP of a few steps sorts by colour."""
    rng = np.random.default_rng(0)
    shapes = [rng.random((8, 8)) < 0.5 for _ in range(20)]
    colours = {"red": (220, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 220), "grey": (120,) * 3}
    captions, pictures, things = [], [], []
    for thing, shape in enumerate(shapes):
        for colour, rgb in colours.items():
            for paper, light in (("white", 255), ("yellow", (255, 240, 120))):
                picture = np.full((32, 32, 3), light, np.uint8)
                picture[shape.repeat(4, 0).repeat(4, 1)] = rgb
                captions.append(f"{colour} thing{thing} on {paper}")
                pictures.append(picture)
                things.append(thing)
    captions, pictures, things = np.array(captions), np.stack(pictures), np.array(things)
    unseen = (np.arange(len(things)) // 2 + things) % 4 == 0  # a colour of each thing
    found, by_picture = {}, {}
    for weight in (0.0, 20.0):
        config = ClipTrainingConfig(
            image_size=32, vision_width=8, text_width=64, embed_dim=64, steps=120, batch_size=64,
            context_length=12, max_shift=0, likeness_weight=weight,
        )  # fmt: skip
        encoder = train_clip(
            captions[~unseen].tolist(), pictures[~unseen], config, folder=tmp_path / str(weight)
        )
        texts = encoder.encode_texts(captions.tolist())
        scores = texts.dot(texts.T)
        same_caption = np.equal.outer(captions, captions)
        scores[same_caption] = -1
        found[weight] = np.mean(things[scores.argmax(1)] == things)
        images = encoder.encode_images(pictures)
        nearest = images[unseen].dot(images[~unseen].T).argmax(1)
        by_picture[weight] = np.mean(things[~unseen][nearest] == things[unseen])
    assert found[20.0] > 0.95 and found[20.0] > found[0.0]
    assert by_picture[20.0] > by_picture[0.0] + 0.2  # chance is 0.05


def test_augmentation_moves_and_mirrors_only(pictures):
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(
        _augmented(pictures[:1, :, :, :1] * 0 + 7, rng, 9), np.full((1, 64, 64, 1), 7)
    )
    moved = _augmented(pictures, np.random.default_rng(1), 3)
    for before, after in zip(pictures, moved, strict=True):
        padded = np.pad(before, ((3, 3), (3, 3), (0, 0)), mode="edge")
        versions = [padded[y : y + 64, x : x + 64] for y in range(7) for x in range(7)]
        versions += [version[:, ::-1] for version in versions]
        assert any(np.array_equal(version, after) for version in versions)
    np.testing.assert_array_equal(moved, _augmented(pictures, np.random.default_rng(1), 3))


def test_training_and_encoding_see_the_same_picture(encoder, pictures):
    with torch.no_grad():
        trained = F.normalize(encoder.model.encode_image(_as_input(pictures)), dim=-1).numpy()
    np.testing.assert_allclose(encoder.encode_images(pictures), trained, atol=1e-5)


def test_the_schedule_rises_and_falls():
    config = ClipTrainingConfig(steps=100, warmup=10)
    rates = [_schedule(step, config) for step in range(100)]
    assert rates[0] == 0.1 and max(rates) == rates[9] == rates[10] == 1
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[-1] < 0.001
    assert _schedule(0, ClipTrainingConfig(steps=1, warmup=0)) == 1


def test_other_sizes_are_scaled(tmp_path, captions, tiny):
    large = np.zeros((12, 80, 100, 3), np.uint8)
    encoder = train_clip(captions, large, tiny, folder=tmp_path)
    assert encoder.encode_images(large).shape == (12, 16)


def test_wrong_data(tmp_path, captions, pictures, tiny):
    with pytest.raises(ValueError, match="images: wanted uint8 of shape"):
        train_clip(captions, pictures / 255, tiny, folder=tmp_path)
    with pytest.raises(ValueError, match="images: wanted one a caption"):
        train_clip(captions[:5], pictures, tiny, folder=tmp_path)
    with pytest.raises(ValueError, match="groups: wanted 12"):
        train_clip(captions, pictures, tiny, groups=[1], folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_the_last_step_spoils_are_not_written(tmp_path, monkeypatch, value):
    def spoil(parameters, limit):
        for parameter in parameters:
            parameter.grad.fill_(value)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spoil)
    captions, pictures = coloured_shapes(8, seed=0)
    config = ClipTrainingConfig(
        image_size=32, vision_width=8, text_width=32, text_layers=1, embed_dim=8, steps=1,
        batch_size=4, context_length=12, warmup=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="lr: the weights are not finite after the last step"):
        train_clip(captions, pictures, config, folder=tmp_path / "clip")
    assert not (tmp_path / "clip").exists()
