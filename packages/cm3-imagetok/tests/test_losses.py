import math

import numpy as np
import pytest
import torch

from cm3_imagetok import codebook_use, psnr, reconstruction_loss


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


def test_reconstruction_loss_weights():
    a, b = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    assert float(reconstruction_loss(a, b, 1.0, 0.0)) == 0.5
    assert float(reconstruction_loss(a, b, 0.0, 2.0)) == 0.5
    assert float(reconstruction_loss(a, b, 1.0, 2.0)) == 1.0
    with pytest.raises(ValueError, match="weights"):
        reconstruction_loss(a, b, 0.0, 0.0)
