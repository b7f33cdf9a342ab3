import numpy as np
import pytest
import torch

from cm3_decoding import cd_k
from cm3_decoding.processors import restrict


@pytest.fixture
def streams():
    return torch.randn(2, 50, 40, generator=torch.Generator().manual_seed(0)).mul(2).unbind()


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


@pytest.mark.parametrize("k", [1, 2, 8, 40])
@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0])
def test_scores_are_the_papers_equation(streams, alpha, k):
    expert, amateur = (softmax(stream.double().numpy()) for stream in streams)
    got = cd_k(*streams, alpha, k).numpy()
    for row in range(50):
        yardstick = sorted(expert[row], reverse=True)[k - 1]
        for token in range(40):
            # A probability that equals the bound is in, but rounds to either side of it.
            if np.isclose(expert[row, token], alpha * yardstick, rtol=1e-5) and alpha < 1:
                continue
            if expert[row, token] >= alpha * yardstick:
                wanted = np.log(expert[row, token]) - np.log(amateur[row, token])
                assert got[row, token] == pytest.approx(wanted, abs=1e-4)
            else:
                assert got[row, token] == -np.inf


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_k_1_is_the_plausible_set_of_contrastive_decoding(streams, alpha):
    # Li et al., arXiv 2210.15097, equation (2): p >= alpha * max p.
    expert = streams[0].double().softmax(-1)
    wanted = expert >= alpha * expert.amax(-1, keepdim=True)
    assert torch.equal(cd_k(*streams, alpha, 1).isfinite(), wanted)


def test_alpha_1_with_k_1_is_greedy(streams):
    got = cd_k(*streams, 1.0, 1)
    assert torch.equal(got.isfinite().nonzero()[:, 1], streams[0].argmax(-1))


def test_a_larger_k_lets_more_in(streams):
    sets = [cd_k(*streams, 0.3, k).isfinite() for k in (1, 4, 16, 40)]
    for small, large in zip(sets, sets[1:], strict=False):
        assert (small <= large).all()
    assert sets[0].sum() < sets[-1].sum()


def test_fewer_than_k_ids_are_all_plausible_and_nothing_else(streams):
    allowed = torch.arange(40) < 3
    expert, amateur = (restrict(stream, allowed) for stream in streams)
    got = cd_k(expert, amateur, 0.3, 8)
    assert torch.equal(got.isfinite(), allowed.expand(50, 40))
    assert not got.isnan().any()


@pytest.mark.parametrize(
    ("alpha", "k", "name"),
    [(0.0, 1, "alpha"), (1.1, 1, "alpha"), ("a", 1, "alpha"), (0.3, 0, "k"), (0.3, 41, "k")],
)
def test_values_out_of_range_are_named(streams, alpha, k, name):
    with pytest.raises(ValueError, match=f"^{name}: wanted"):
        cd_k(*streams, alpha, k)
