import math

import numpy as np
import pytest
import torch

from cm3_imagetok import codebook_use, frechet_distance, psnr, ssim


def test_psnr_is_the_textbook_formula_per_picture():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 3, 3, 4, 4)).astype(np.float64)
    wanted = 10 * np.log10(255**2 / ((a - b) ** 2).mean((1, 2, 3)))
    found = psnr(torch.from_numpy(a / 127.5 - 1), torch.from_numpy(b / 127.5 - 1))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_codebook_use():
    use = codebook_use(torch.tensor([0, 0, 1, 1]), 4)
    assert use.used_share == 0.5
    assert math.isclose(use.entropy_bits, 1.0)
    assert math.isclose(use.perplexity_share, 0.5)
    assert codebook_use(torch.arange(4), 4).perplexity_share == pytest.approx(1.0)
    with pytest.raises(ValueError, match="codes"):
        codebook_use(torch.tensor([], dtype=torch.long), 4)


def pair(height: int = 24, width: int = 31) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, height, width, generator=generator) * 2 - 1
    noise = torch.randn(images.shape, generator=generator) * torch.tensor([0.0, 0.1, 0.5]).view(
        3, 1, 1, 1
    )
    return (images + noise).clamp(-1, 1), images


def test_ssim_is_scikit_images():
    metrics = pytest.importorskip("skimage.metrics")
    first, second = pair()
    options = dict(
        data_range=2.0,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    wanted = torch.tensor([
        metrics.structural_similarity(a.numpy() + 1, b.numpy() + 1, **options)
        for a, b in zip(first, second, strict=True)
    ])  # fmt: skip
    found = ssim(first, second)
    torch.testing.assert_close(found, wanted.to(found.dtype), atol=1e-4, rtol=0)
    assert float(found[0]) == pytest.approx(1.0) and found[0] > found[1] > found[2]
    with pytest.raises(ValueError, match="at least 11"):
        ssim(first[..., :10], second[..., :10])


def test_ssim_is_the_formula_at_one_window():
    first, second = (grid[:1, :1, :11, :11].numpy().astype(np.float64) for grid in pair())
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / 4.5)
    window = np.outer(window, window) / window.sum() ** 2
    x, y = first[0, 0] + 1, second[0, 0] * 0.5 + 1
    mx, my = (window * x).sum(), (window * y).sum()
    vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
    cov = (window * (x - mx) * (y - my)).sum()
    c1, c2 = 0.02**2, 0.06**2
    wanted = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    found = ssim(torch.from_numpy(first), torch.from_numpy(second) * 0.5)
    assert float(found) == pytest.approx(wanted, abs=1e-5)


def test_frechet_distance_is_the_formula_with_scipys_root():
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50, 6))
    b = rng.normal(size=(40, 6)).dot(rng.normal(size=(6, 6))) + 0.5
    c1, c2 = np.cov(a.T), np.cov(b.T)
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    wanted = shift + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1.dot(c2)).real)
    first, second = torch.from_numpy(a), torch.from_numpy(b)
    assert frechet_distance(first, second) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)


def test_frechet_distance_of_one_dimension_and_of_fewer_rows_than_columns():
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [9.0]])
    # means 1 and 7, standard deviations sqrt(2) and sqrt(8)
    assert frechet_distance(a, b) == pytest.approx(36 + (8**0.5 - 2**0.5) ** 2)
    wide = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(wide, wide + 1) == pytest.approx(9.0, abs=1e-4)
    with pytest.raises(ValueError, match="at least 2 rows"):
        frechet_distance(a[:1], b)
