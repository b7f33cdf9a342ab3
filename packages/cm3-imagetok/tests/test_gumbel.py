"""The Gumbel quantizer draws by its logits, and autocast changes nothing."""

import numpy as np
import pytest
import torch

from cm3_imagetok import GumbelQuantizer, gumbel_temperature


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


@pytest.mark.parametrize("total", [1, 7, 1000])
def test_the_temperature_falls_from_one_to_a_sixteenth_and_stays(total):
    values = [gumbel_temperature(step, total) for step in range(total + 3)]
    assert values[0] == 1
    assert values[total:] == pytest.approx([1 / 16] * 3)
    assert all(later <= earlier for earlier, later in zip(values, values[1:], strict=False))
    assert gumbel_temperature(500, 1000) == pytest.approx((1 + 1 / 16) / 2)


def test_the_temperature_changes_the_gradient_and_not_what_is_drawn():
    quantizer = GumbelQuantizer(7, 3, kl_weight=0.0).train()
    drawn, gradients = [], []
    for step in (0, 500, 1000):
        quantizer.temperature = gumbel_temperature(step, 1000)
        z = torch.ones(2, 3, 4, 4).cumsum(2).requires_grad_()
        quantized = quantizer(z, torch.Generator().manual_seed(0))
        quantized.grid.square().sum().backward()
        drawn.append(quantized.codes)
        gradients.append(z.grad)
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
    assert not torch.allclose(gradients[0], gradients[1], rtol=0.01)
    assert not torch.allclose(gradients[1], gradients[2], rtol=0.01)
