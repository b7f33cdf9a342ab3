import warnings
from pathlib import Path

import pytest
import torch

from cm3_imagetok import CheckpointError, PerceptualLoss


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_it_is_the_lpips_package(tmp_path):
    """VGG16 has random weights here, the layers have the published ones, which lpips ships."""
    lpips = pytest.importorskip("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, about how lpips calls it
        torch.manual_seed(0)
        peer = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    slices = {k.split(".", 1)[1]: v for k, v in peer.net.state_dict().items()}
    torch.save({f"features.{name}": v for name, v in slices.items()}, tmp_path / "vgg16.pth")
    linear = Path(lpips.__file__).parent / "weights/v0.1/vgg.pth"
    ours = PerceptualLoss.from_files(tmp_path / "vgg16.pth", linear)
    found, wanted = ours(pictures(0), pictures(1)), peer(pictures(0), pictures(1)).flatten()
    assert wanted.min() > 1e-3
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def loss() -> PerceptualLoss:
    torch.manual_seed(0)
    return PerceptualLoss()


def test_names_are_those_of_torchvision(loss):
    models = pytest.importorskip("torchvision.models")
    with torch.device("cpu"):
        peer = models.vgg16(weights=None, init_weights=False).features
    wanted = {f"features.{name}": tensor.shape for name, tensor in peer.state_dict().items()}
    ours = {n: t.shape for n, t in loss.state_dict().items() if n.startswith("features.")}
    assert ours == wanted


def test_a_copy_is_at_distance_0_and_the_gradient_reaches_the_reconstruction_alone(loss):
    images = pictures(0).requires_grad_()
    made = pictures(1).requires_grad_()
    assert float(loss(images, images).abs().max().detach()) == 0.0
    loss(made, images).sum().backward()
    assert made.grad.isfinite().all() and made.grad.abs().sum() > 0
    assert images.grad is None
    assert not any(p.requires_grad for p in loss.parameters())


def test_flat_pictures_have_finite_gradients(loss):
    made = torch.zeros(1, 3, 32, 32, requires_grad=True)
    loss(made, torch.ones(1, 3, 32, 32)).sum().backward()
    assert made.grad.isfinite().all()


def test_missing_and_wrong_weights_are_named(loss, tmp_path):
    state = loss.state_dict()
    torch.save({n: t for n, t in state.items() if n.startswith("lin")}, tmp_path / "lin.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg.pth")
    with pytest.raises(CheckpointError, match=r"vgg\.pth: features\.0\.weight: wanted shape"):
        PerceptualLoss.from_files(tmp_path / "vgg.pth", tmp_path / "lin.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        PerceptualLoss.from_files(tmp_path / "no.pth", tmp_path / "lin.pth")
