import numpy as np
import pytest
import torch

from cm3_decoding import SamplingConfig
from cm3_decoding.sampling import choose, sample


def test_sample_inverts_the_cumulative_distribution():
    logits = torch.tensor([0.2, 0.0, 0.8]).log().expand(5, 3)
    uniforms = torch.tensor([0.0, 0.19, 0.21, 0.5, 1 - 2**-24])
    assert sample(logits, uniforms).tolist() == [0, 0, 2, 2, 2]


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_every_draw_is_the_papers_distribution(scale):
    """Guidance, temperature, top-k and top-p once more in NumPy, on random logits."""
    cond, uncond = torch.randn(2, 1, 20, generator=torch.Generator().manual_seed(0)).mul(3)
    allowed = torch.arange(20)[None] >= 4
    config = SamplingConfig(guidance_scale=scale, temperature=0.7, top_k=8, top_p=0.9)
    u, c = uncond[0].double().numpy(), cond[0].double().numpy()
    logits = (u + scale * (c - u)) / 0.7
    logits[:4] = -np.inf
    logits[logits < np.sort(logits)[-8]] = -np.inf
    p = np.exp(logits - logits.max())
    p /= p.sum()
    order = np.argsort(-p)
    kept = order[: int((np.cumsum(p[order]) < 0.9).sum()) + 1]
    wanted = np.zeros(20)
    wanted[kept] = p[kept] / p[kept].sum()
    uniforms = (torch.arange(1000) + 0.5) / 1000
    streams = {"conditional": cond.expand(1000, 20), "unconditional": uncond.expand(1000, 20)}
    drawn = choose(streams, allowed.expand(1000, 20), uniforms, config)
    found = np.bincount(drawn.numpy(), minlength=20) / 1000
    np.testing.assert_allclose(found, wanted, atol=0.002)
