"""rFID: the features and the distance against torch-fidelity's own computation."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from cm3_imagetok import frechet_distance
from cm3_imagetok.checkpoint import CheckpointError
from cm3leon.evaluation.inception import inception_features


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights: the published ones cannot be had here."""

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict, *args, **kwargs):
            return None

    empty = tmp_path_factory.mktemp("inception") / "none.pth"
    torch.save({}, empty)
    torch.manual_seed(0)
    model = Untrained("fid", ["2048"], str(empty))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    path = empty.with_name("weights.pth")
    torch.save(model.state_dict(), path)
    return path


class Pictures(torch.utils.data.Dataset):
    def __init__(self, pixels):
        self.pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, row):
        return self.pixels[row]


@pytest.mark.slow
def test_rfid_is_torch_fidelitys(weights):
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    second = (first // 2 + rng.integers(0, 128, first.shape, dtype=np.uint8)).astype(np.uint8)
    features = inception_features(weights)
    ours = frechet_distance(features(first), features(second))
    theirs = calculate_metrics(
        input1=Pictures(first),
        input2=Pictures(second),
        fid=True,
        cuda=False,
        feature_extractor_weights_path=str(weights),
        verbose=False,
        batch_size=8,
        save_cpu_ram=True,
    )["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert ours > 100 * frechet_distance(features(first), features(first[::-1].copy()))


def test_files_that_are_no_weights_are_named(tmp_path):
    path = tmp_path / "other.pth"
    with pytest.raises(CheckpointError, match="other.pth"):
        inception_features(path)
    torch.save({"conv.weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"other.pth: wanted torch-fidelity's Inception-v3"):
        inception_features(path)
