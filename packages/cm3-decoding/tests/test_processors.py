import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from cm3_decoding import apply_temperature, restrict, top_k_filter, top_p_filter


def random_logits(seed, rows=4, size=20):
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * 3


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), top_p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_set_that_reaches_p(seed, top_p):
    logits = random_logits(seed).double()
    got = top_p_filter(logits, top_p)
    for row, kept in zip(logits.numpy(), got, strict=True):
        order = np.argsort(-row)
        mass = np.cumsum(np.exp(row[order]) / np.exp(row).sum())
        assume(np.abs(mass - top_p).min() > 1e-9)  # rounding decides there
        wanted = order[: int((mass < top_p).sum()) + 1]
        assert kept.isfinite().nonzero()[:, 0].tolist() == sorted(wanted.tolist())
    assert torch.equal(got[got.isfinite()], logits[got.isfinite()])


def test_top_p_of_the_docstring():
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    assert top_p_filter(logits, 0.6).isfinite().tolist() == [False, True, True]


@pytest.mark.parametrize("sharpness", [0.3, 6.0])  # many ids reach top_p, or few
def test_top_p_among_many_ids(sharpness):
    logits = torch.randn(3, 1000, generator=torch.Generator().manual_seed(3)).double() * sharpness
    logits[1, 7] = logits[1].max() + 20  # a row that one id is enough for
    got = top_p_filter(logits, 0.7)
    for row, kept in zip(logits.numpy(), got, strict=True):
        order = np.argsort(-row)
        mass = np.cumsum(np.exp(row[order]) / np.exp(row).sum())
        wanted = order[: int((mass < 0.7).sum()) + 1]
        assert kept.isfinite().nonzero()[:, 0].tolist() == sorted(wanted.tolist())
    for row, kept in zip(logits, got, strict=True):  # alone as in the batch
        assert torch.equal(top_p_filter(row[None], 0.7)[0], kept)


@pytest.mark.parametrize("top_p", [1e-30, 1e-40, 1e-50, 5e-324])
def test_top_p_towards_0_keeps_the_likeliest(top_p):
    logits = torch.tensor([[0.0, 5.0, 1.0], [3.0, 2.0, 2.0]])
    kept = top_p_filter(logits, top_p).isfinite()
    assert kept.tolist() == [[False, True, False], [True, False, False]]


def test_top_p_keeps_what_ties_with_the_last():
    logits = torch.tensor([0.4, 0.2, 0.2, 0.2]).log()
    assert top_p_filter(logits, 0.5).isfinite().all()


def test_top_p_skips_what_may_not_come():
    logits = restrict(random_logits(1), torch.arange(20) < 3)
    assert top_p_filter(logits, 1.0)[:, 3:].isneginf().all()


@pytest.mark.parametrize("top_k", [1, 3, 20, 99])
def test_top_k_keeps_the_k_largest(top_k):
    logits = random_logits(2)
    for row, kept in zip(logits, top_k_filter(logits, top_k), strict=True):
        wanted = sorted(range(20), key=lambda token: -row[token])[:top_k]
        assert kept.isfinite().nonzero()[:, 0].tolist() == sorted(wanted)


def test_top_k_keeps_ties():
    logits = torch.tensor([1.0, 2.0, 2.0, 0.0])
    assert top_k_filter(logits, 1).isfinite().tolist() == [False, True, True, False]


def test_temperature_scales_differences():
    logits = random_logits(3)
    assert torch.equal(apply_temperature(logits, 1.0), logits)
    for temperature in (0.5, 0.9, 3.0):
        got, wanted = apply_temperature(logits, temperature), logits / temperature
        assert float(got.max()) == 0
        torch.testing.assert_close(got.diff(dim=-1), wanted.diff(dim=-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-38, 1e-45, 1e-300])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e30, 1e37])
def test_a_temperature_towards_0_is_greedy(temperature, scale):
    logits = restrict(random_logits(6) * scale, torch.arange(20) < 15)
    shares = apply_temperature(logits, temperature).softmax(-1)
    assert bool(shares.isfinite().all())
    if temperature < scale / 1e5:
        wanted = torch.nn.functional.one_hot(logits.argmax(-1), 20).float()
        torch.testing.assert_close(shares, wanted, atol=1e-6, rtol=0)


def test_restrict_takes_one_mask_or_one_per_row():
    logits = random_logits(4)
    mask = torch.rand(4, 20, generator=torch.Generator().manual_seed(4)) < 0.5
    assert torch.equal(restrict(logits, mask).isfinite(), mask)
    assert torch.equal(restrict(logits, mask[0]).isfinite(), mask[0].expand(4, 20))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: apply_temperature(x, 0), "temperature"),
        (lambda x: apply_temperature(x, float("nan")), "temperature"),
        (lambda x: apply_temperature(x, "a"), "temperature"),
        (lambda x: apply_temperature(x, None), "temperature"),
        (lambda x: top_p_filter(x, "a"), "top_p"),
        (lambda x: top_k_filter(x, 0), "top_k"),
        (lambda x: top_k_filter(x, 5.0), "top_k"),
        (lambda x: top_p_filter(x, 0.0), "top_p"),
        (lambda x: top_p_filter(x, 1.1), "top_p"),
    ],
)
def test_values_out_of_range_are_named(call, name):
    with pytest.raises(ValueError, match=f"^{name}: wanted"):
        call(random_logits(5))
