import numpy as np
import pytest
import torch

from cm3_decoding import SamplingConfig
from cm3_decoding.noise import Noise
from cm3_decoding.sampling import choose, draw, sample


def exponentials(rows, size, seed=0):
    seeds = [seed + row for row in range(rows)]
    return Noise(seeds, 1, 0, size, "cpu").at(torch.zeros(rows, 1, dtype=torch.long))[:, 0]


def test_the_first_arrival_is_drawn():
    logits = torch.tensor([0.2, 0.0, 0.8]).log().expand(3, 3)
    # Arrivals: 1, never, 2; then 2, never, 1; and an id without probability never wins.
    noise = torch.tensor([[0.2, 1e-30, 1.6], [0.4, 1e-30, 0.8], [16.0, 1e-30, 16.0]])
    assert sample(logits, noise).tolist() == [0, 2, 2]


def test_an_id_that_alone_may_come_does_come():
    logits = torch.full((500, 40), float("-inf"))
    logits[torch.arange(500), torch.arange(500) % 40] = -300.0
    assert torch.equal(sample(logits, exponentials(500, 40)), torch.arange(500) % 40)


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 6.0])
@pytest.mark.parametrize(("rounding", "most"), [(3e-7, 0), (2.0**-9, 20)])
def test_rounding_of_the_logits_hardly_ever_changes_a_draw(sharpness, rounding, most):
    """As much as float32 and bfloat16 round; inverting cumulative sums changed 39 to 359."""
    generator = torch.Generator().manual_seed(int(sharpness * 10))
    logits = torch.randn(1000, 8192, generator=generator) * sharpness
    other = logits * (1 + rounding * torch.randn(logits.shape, generator=generator))
    noise = exponentials(1000, 8192)
    assert int((sample(logits, noise) != sample(other, noise)).sum()) <= most


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
    rows = 40_000
    streams = {"conditional": cond.expand(rows, 20), "unconditional": uncond.expand(rows, 20)}
    drawn = choose(streams, allowed.expand(rows, 20), exponentials(rows, 20), config)
    found = np.bincount(drawn.numpy(), minlength=20)
    deviation = np.sqrt(rows * wanted * (1 - wanted))
    assert (np.abs(found - rows * wanted) <= 4 * deviation).all()


@pytest.mark.parametrize("sampler", ["top-p", "cd-k", "greedy"])
def test_one_rows_scores_give_as_many_draws_as_there_are_numbers(sampler):
    config = SamplingConfig(sampler=sampler, guidance_scale=2.0, top_p=0.8, top_k=5)
    scores = torch.randn(3, 1, 20, generator=torch.Generator().manual_seed(1))
    noise = exponentials(12, 20).view(3, 4, 20)
    found = draw(scores, noise, config).expand(3, 4)
    for place in range(4):
        assert torch.equal(found[:, place], draw(scores[:, 0], noise[:, place], config))
