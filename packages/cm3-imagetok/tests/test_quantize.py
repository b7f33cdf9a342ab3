import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from cm3_imagetok import (
    EMAQuantizer,
    GumbelQuantizer,
    NearestQuantizer,
    quantize,
    revive_dead_codes,
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


@pytest.mark.parametrize("training", [True, False])
def test_autocast_does_not_change_what_gumbel_gives(training):
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(512, 8).train(training)
    z = torch.randn(4, 8, 16, 16)

    results = []
    for enabled in (False, True):
        quantizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            quantized = quantizer(z, torch.Generator().manual_seed(1))
            codes = quantizer.encode(z)
        (quantized.grid.square().mean() + quantized.loss).backward()
        results.append([*quantized, codes, *(p.grad for p in quantizer.parameters())])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_autocast_does_not_change_which_gumbel_code_is_copied():
    books = []
    for enabled in (False, True):
        torch.manual_seed(0)
        quantizer = GumbelQuantizer(512, 8)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            quantizer.set_codes(torch.arange(100), torch.randn(100, 8))
        books.append([parameter.detach() for parameter in quantizer.parameters()])
    for a, b in zip(*books, strict=True):
        assert torch.equal(a, b)


def test_gumbel_takes_the_largest_logit_and_its_vector():
    quantizer = GumbelQuantizer(11, 3).eval()
    z = torch.randn(2, 3, 4, 5)
    weight = quantizer.proj.weight.detach()[:, :, 0, 0].numpy()
    logits = z.permute(0, 2, 3, 1).numpy().dot(weight.T) + quantizer.proj.bias.detach().numpy()
    codes = quantizer.encode(z)
    np.testing.assert_array_equal(codes, logits.argmax(-1))
    quantized = quantizer(z)
    assert torch.equal(quantized.codes, codes)
    torch.testing.assert_close(quantized.grid.movedim(1, -1), quantizer.codebook[codes])
    share = np.exp(logits - logits.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    divergence = (share * np.log(share * 11)).sum(-1).mean()
    assert float(quantized.loss.detach()) == pytest.approx(
        quantizer.kl_weight * divergence, rel=1e-4
    )


def test_gumbel_draws_by_the_logits_shares():
    quantizer = GumbelQuantizer(3, 1).train()
    share = torch.tensor([0.2, 0.3, 0.5])
    with torch.no_grad():
        quantizer.proj.weight.zero_()
        quantizer.proj.bias.copy_(share.log())
    generator = torch.Generator().manual_seed(0)
    z = torch.zeros(1, 1, 100, 100)
    drawn = quantizer(z, generator).codes
    frequency = torch.bincount(drawn.flatten(), minlength=3) / drawn.numel()
    torch.testing.assert_close(frequency, share, atol=0.02, rtol=0)
    again = quantizer(z, torch.Generator().manual_seed(0)).codes
    assert torch.equal(drawn, again)


def test_gumbel_gives_a_code_vector_forward_and_the_soft_gradient_backward():
    quantizer = GumbelQuantizer(5, 2, kl_weight=0.0, temperature=0.5).train()
    z = torch.randn(1, 2, 3, 3, requires_grad=True)
    quantized = quantizer(z, torch.Generator().manual_seed(1))
    torch.testing.assert_close(quantized.grid.movedim(1, -1), quantizer.codebook[quantized.codes])
    quantized.grid.sum().backward()
    assert z.grad.abs().sum() > 0 and quantizer.proj.weight.grad.abs().sum() > 0


KINDS = {
    "nearest": lambda: NearestQuantizer(6, 2),
    "normalised": lambda: NearestQuantizer(6, 2, normalise=True),
    "ema": lambda: EMAQuantizer(6, 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_only_dead_codes_are_revived_onto_present_vectors(kind):
    quantizer = KINDS[kind]()
    before = quantizer.codebook.detach().clone()
    z = torch.randn(1, 2, 4, 4)
    usage = torch.tensor([5.0, 0.0, 5.0, 0.1, 5.0, 5.0])
    moved = revive_dead_codes(quantizer, z, usage, 1.0, torch.Generator().manual_seed(0))
    assert moved == 2
    kept = [0, 2, 4, 5]
    torch.testing.assert_close(quantizer.codebook[kept], before[kept])
    vectors = z.permute(0, 2, 3, 1).reshape(-1, 2)
    if kind == "normalised":
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
    for code in (1, 3):
        assert (vectors - quantizer.codebook[code]).abs().sum(-1).min() < 1e-6


def test_a_dead_gumbel_code_wins_at_a_present_vector_and_looks_as_its_winner_did():
    quantizer = GumbelQuantizer(6, 2).eval()
    z = torch.randn(1, 2, 4, 4)
    old, rows = quantizer.encode(z), quantizer.proj.weight.detach().clone()
    usage = torch.ones(6)
    usage[3] = 0.0
    assert revive_dead_codes(quantizer, z, usage, 0.5, torch.Generator().manual_seed(0)) == 1
    new = quantizer.encode(z)
    assert (new == 3).any()
    winners = quantizer.codebook[old[new == 3]]
    assert (quantizer.codebook[3] - winners).abs().sum(-1).min() < 1e-6
    kept = [0, 1, 2, 4, 5]
    assert torch.equal(quantizer.proj.weight[kept], rows[kept])
