"""PSNR and SSIM against their formulas, LPIPS against the tokenizer's."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import cm3_imagetok
from cm3_imagetok import PerceptualLoss, to_tensor
from cm3leon.evaluation.measures.reconstruction import Lpips, psnr, ssim


def pair(count=20, height=20, width=27):
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (count, height, width, 3))
    noise = rng.normal(size=real.shape) * np.linspace(0, 60, count)[:, None, None, None]
    return (real + noise).clip(0, 255).astype(np.uint8), real.astype(np.uint8)


def test_psnr_is_the_formula():
    rebuilt, real = pair()
    found = psnr(rebuilt, real)
    assert found[0] == np.inf and (np.diff(found[1:]) < 0).all()
    for one, other, decibels in zip(rebuilt[1:], real[1:], found[1:], strict=True):
        error = np.mean((one / 255 - other / 255) ** 2)
        assert decibels == pytest.approx(-10 * np.log10(error), rel=1e-12)
    ours = cm3_imagetok.psnr(to_tensor(rebuilt), to_tensor(real))
    np.testing.assert_allclose(found[1:], ours[1:], rtol=1e-5)


def ssim_by_filter(one, other):
    """One channel (H, W), by scipy's Gaussian filter, its rim cut off."""

    def mean(x):
        return gaussian_filter(x, 1.5, truncate=3.5)[5:-5, 5:-5]

    x, y = one.astype(np.float64), other.astype(np.float64)
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return found.mean()


def test_ssim_is_the_formula_with_windows_inside_the_picture():
    rebuilt, real = pair()
    found = ssim(rebuilt, real)
    wanted = [
        np.mean([ssim_by_filter(one[..., c], other[..., c]) for c in range(3)])
        for one, other in zip(rebuilt, real, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert found[0] == pytest.approx(1) and found[1:].max() < 1


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Random weights under the published names: the published ones cannot be had here."""
    folder = tmp_path_factory.mktemp("lpips")
    torch.manual_seed(0)
    state = PerceptualLoss().state_dict()
    heads = {name: tensor.abs() for name, tensor in state.items() if name.startswith("lin")}
    rest = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    torch.save(rest, folder / "vgg16-397923af.pth")
    (folder / "heads").mkdir()
    torch.save(heads, folder / "heads" / "vgg.pth")
    return folder, folder / "heads" / "vgg.pth"


def test_lpips_is_the_tokenizers_and_says_what_it_is(files):
    lpips = Lpips(files[0], files[1])
    rebuilt, real = pair(count=17)
    found = lpips(rebuilt, real)
    wanted = PerceptualLoss.from_files(files[0] / "vgg16-397923af.pth", files[1])(
        to_tensor(rebuilt), to_tensor(real)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)
    assert found[0] == 0 and (found[1:] > 0).all()
    assert lpips.description["weights"] == ["vgg16-397923af.pth", "vgg.pth"]
    assert lpips.description["name"] == "lpips-vgg"
    assert all(len(digest) == 64 for digest in lpips.description["sha256"])


def test_missing_and_wrong_weights_are_named(files, tmp_path):
    wanted = r"vgg16: wanted torchvision's vgg16-397923af.pth, got no file at .*vgg16-397923af.pth"
    with pytest.raises(ValueError, match=wanted):
        Lpips(tmp_path, files[1])
    with pytest.raises(ValueError, match=r"linear: wanted the lpips package's .*vgg.pth, got no"):
        Lpips(files[0], tmp_path / "none.pth")
    with pytest.raises(ValueError, match="wanted shape"):
        Lpips(files[1], files[1])


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_odd_pictures_are_named(measure):
    one = np.zeros((2, 12, 12, 3), np.uint8)
    for rebuilt, real, message in (
        (one[0], one, r"rebuilt: wanted pictures \(N, H, W, 3\) uint8, got uint8 \(12, 12, 3\)"),
        (one, one / 255, r"real: wanted pictures \(N, H, W, 3\) uint8, got float64"),
        (one, one[:1], r"real: wanted the shape of rebuilt \(2, 12, 12, 3\), got \(1, 12, 12, 3\)"),
        (one[:0], one[:0], r"rebuilt: wanted pictures .* got uint8 \(0, 12, 12, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            measure(rebuilt, real)
    with pytest.raises(ValueError, match=r"rebuilt: wanted sides of at least 11 pixels"):
        ssim(one[:, :10], one[:, :10])
