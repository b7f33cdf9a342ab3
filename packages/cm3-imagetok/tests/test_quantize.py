import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from cm3_imagetok import (
    EMAQuantizer,
    GumbelQuantizer,
    NearestQuantizer,
    quantize,
)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_nearest_is_brute_force_nearest(seed, normalise):
    generator = torch.Generator().manual_seed(seed)
    quantizer = NearestQuantizer(11, 3, normalise=normalise)
    with torch.no_grad():
        quantizer.embedding.weight.copy_(torch.randn(11, 3, generator=generator))
    z = torch.randn(2, 3, 4, 5, generator=generator)
    vectors, book = z.permute(0, 2, 3, 1).numpy(), quantizer.embedding.weight.detach().numpy()
    if normalise:
        vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        book = book / np.linalg.norm(book, axis=-1, keepdims=True)
    distance = ((vectors[..., None, :] - book) ** 2).sum(-1)
    codes = quantizer.encode(z).numpy()
    chosen = np.take_along_axis(distance, codes[..., None], -1)[..., 0]
    np.testing.assert_allclose(chosen, distance.min(-1), atol=1e-5)
    np.testing.assert_allclose(
        quantizer.decode(torch.from_numpy(codes)).detach().permute(0, 2, 3, 1),
        book[codes],
        atol=1e-6,
    )


def test_straight_through_gradient_is_identity():
    quantizer = NearestQuantizer(8, 4)
    z = torch.randn(2, 4, 3, 3, requires_grad=True)
    weights = torch.randn(2, 4, 3, 3)
    (quantizer(z).grid * weights).sum().backward()
    torch.testing.assert_close(z.grad, weights)


def test_beta_weighs_the_commitment_of_the_encoder():
    z = torch.randn(1, 4, 2, 2, requires_grad=True)
    gradients = []
    for beta in (0.25, 0.5):
        torch.manual_seed(0)
        quantizer = NearestQuantizer(8, 4, beta)
        (gradient,) = torch.autograd.grad(quantizer(z).loss, z)
        gradients.append(gradient)
    torch.testing.assert_close(2 * gradients[0], gradients[1])


def test_moving_average_is_the_mean_of_what_was_assigned():
    quantizer = EMAQuantizer(2, 1, decay=0.0)
    with torch.no_grad():
        quantizer.embedding.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    z = torch.tensor([-3.0, -2.0, 2.0, 6.0]).view(1, 1, 2, 2)
    quantizer.train()(z)
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[-2.5], [4.0]]))
    quantizer.eval()(z + 100)
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[-2.5], [4.0]]))


def test_codes_do_not_depend_on_how_many_distances_are_held_at_once(monkeypatch):
    for quantizer in (NearestQuantizer(11, 3), GumbelQuantizer(11, 3)):
        z = torch.randn(2, 3, 4, 5)
        codes = quantizer.encode(z)
        monkeypatch.setattr(quantize, "SCORES_AT_ONCE", 3 * 11)
        assert torch.equal(quantizer.encode(z), codes)
        monkeypatch.undo()


def test_autocast_does_not_change_the_codes():
    generator = torch.Generator().manual_seed(0)
    quantizer = NearestQuantizer(512, 8)
    torch.nn.init.normal_(quantizer.embedding.weight, generator=generator)
    z = torch.randn(4, 8, 16, 16, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        codes = quantizer(z).codes
    assert torch.equal(codes, quantizer(z).codes)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_a_code_that_nobody_chooses_stays_where_it_is(decay):
    quantizer = EMAQuantizer(4, 2, decay=decay).train()
    with torch.no_grad():
        quantizer.set_codes(torch.arange(4), torch.tensor([[1.0, 1], [-1, 1], [9, 9], [-7, 5]]))
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 2, 4, 4, generator=generator)
    for _ in range(3000):  # 0.99 ** 1147 is below the floor
        codes = quantizer(z).codes
    assert set(codes.unique().tolist()) <= {0, 1}
    wanted = torch.tensor([[9.0, 9], [-7, 5]])
    torch.testing.assert_close(quantizer.codebook[2:], wanted, rtol=1e-4, atol=0)
    # chosen again, it moves to what chose it
    for _ in range(3000):
        quantizer(torch.full((1, 2, 4, 4), 8.0))
    torch.testing.assert_close(quantizer.codebook[2], torch.tensor([8.0, 8.0]))


def test_codes_in_use_are_the_plain_moving_averages():
    generator = torch.Generator().manual_seed(0)
    quantizer = EMAQuantizer(8, 2).train()
    book = quantizer.codebook.clone()
    sizes, sums = torch.ones(8), book.clone()
    for _ in range(20):
        z = torch.randn(2, 2, 4, 4, generator=generator)
        codes = quantizer(z).codes.flatten()
        sizes = sizes.lerp(torch.bincount(codes, minlength=8).float(), 1 - 0.99)
        added = torch.zeros(8, 2).index_add_(0, codes, z.permute(0, 2, 3, 1).reshape(-1, 2))
        sums = sums.lerp(added, 1 - 0.99)
        assert torch.equal(quantizer.codebook, sums / sizes[:, None])


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", [NearestQuantizer, EMAQuantizer, GumbelQuantizer])
def test_the_grid_has_the_type_of_the_input(make, training, autocast):
    quantizer = make(8, 4).train(training)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            grid = quantizer(torch.randn(1, 4, 2, 2, dtype=dtype)).grid
        assert grid.dtype == dtype
