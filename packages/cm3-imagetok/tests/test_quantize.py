import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cm3_imagetok import EMAQuantizer, NearestQuantizer, revive_dead_codes


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


@pytest.mark.parametrize("kind", [NearestQuantizer, EMAQuantizer])
def test_only_dead_codes_are_revived_onto_present_vectors(kind):
    quantizer = kind(6, 2)
    before = quantizer.codebook.detach().clone()
    z = torch.randn(1, 2, 4, 4)
    usage = torch.tensor([5.0, 0.0, 5.0, 0.1, 5.0, 5.0])
    moved = revive_dead_codes(quantizer, z, usage, 1.0, torch.Generator().manual_seed(0))
    assert moved == 2
    kept = [0, 2, 4, 5]
    torch.testing.assert_close(quantizer.codebook[kept], before[kept])
    vectors = z.permute(0, 2, 3, 1).reshape(-1, 2)
    for code in (1, 3):
        assert (vectors - quantizer.codebook[code]).abs().sum(-1).min() < 1e-6
