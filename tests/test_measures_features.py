"""Named features: what they say of themselves, and which results may be compared."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from cm3_imagetok.checkpoint import CheckpointError
from cm3leon.evaluation.measures.features import (
    ClipFeatures,
    Features,
    InceptionFeatures,
    same_features,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


class Encoder:
    dim = 4

    def __init__(self, encoder_id="ViT-B-32-quickgelu:openai:0123456789abcdef"):
        self.encoder_id = encoder_id

    def encode_images(self, images):
        return np.stack([np.resize(image.mean((0, 1)), 4) for image in images]).astype(np.float32)


def test_clip_takes_any_encoder_and_names_it():
    clip: Features = ClipFeatures(Encoder())
    found = clip(PIXELS)
    assert found.shape == (3, 4) and found.dtype == np.float64
    said = clip.description
    assert said["name"] == clip.name == "clip" and said["dimension"] == 4
    assert said["weights"] == "ViT-B-32-quickgelu:openai" and said["sha256"] == "0123456789abcdef"
    assert json.loads(json.dumps(said)) == said
    same_features(said, json.loads(json.dumps(said)))


def test_results_of_other_features_are_refused_and_both_are_named():
    one = ClipFeatures(Encoder()).description
    same_features(one, ClipFeatures(Encoder("a folder:0123456789abcdef")).description)
    other = ClipFeatures(Encoder("ViT-L-14:fedcba9876543210")).description
    with pytest.raises(ValueError, match=r"'clip' .*0123456789abcdef.* 'clip' .*fedcba9876543210"):
        same_features(one, other)
    inception = {"name": "inception", "tool": "torch-fidelity", "version": "0.4.0"}
    with pytest.raises(ValueError, match=r"wanted the same for both results, got 'clip'.*'incep"):
        same_features(one, inception)
    with pytest.raises(ValueError, match=r"'inception' \(version 0.4.0\) and .*version 0.5.0"):
        same_features(inception, inception | {"version": "0.5.0"})


def test_the_missing_inception_file_is_named(tmp_path):
    name = r"weights-inception-2015-12-05-6726825d\.pth"
    wanted = rf"inception: wanted torch-fidelity's {name}, got no file at .*{name}; put it there"
    with pytest.raises(ValueError, match=wanted):
        InceptionFeatures(tmp_path)
    (tmp_path / "other.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        InceptionFeatures(tmp_path / "other.pth")


def test_odd_pictures_are_named():
    with pytest.raises(ValueError, match=r"pixels: wanted pictures \(N, H, W, 3\) uint8, got"):
        ClipFeatures(Encoder())(PIXELS / 255)


def test_inception_is_torch_fidelitys(tmp_path):
    """Random weights under the published name: the published ones cannot be had here."""

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict, *args, **kwargs):
            return None

    torch.save({}, tmp_path / "none.pth")
    torch.manual_seed(0)
    theirs = Untrained("fid", ["2048"], str(tmp_path / "none.pth"))
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    path = tmp_path / "weights-inception-2015-12-05-6726825d.pth"
    torch.save(theirs.state_dict(), path)
    inception: Features = InceptionFeatures(tmp_path)
    found = inception(PIXELS)
    with torch.inference_mode():
        wanted = theirs(torch.from_numpy(PIXELS).permute(0, 3, 1, 2))[0]
    assert found.shape == (3, 2048) and found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    said = inception.description
    assert said["name"] == inception.name == "inception" and said["dimension"] == 2048
    assert said["weights"] == path.name and len(said["sha256"]) == 64
    assert said["tool"] == "torch-fidelity" and said["version"]
