"""Dead codes come back, at any moment of a training step."""

import pytest
import torch

from cm3_imagetok import EMAQuantizer, GumbelQuantizer, NearestQuantizer, revive_dead_codes

KINDS = {
    "nearest": lambda: NearestQuantizer(6, 2),
    "normalised": lambda: NearestQuantizer(6, 2, normalise=True),
    "ema": lambda: EMAQuantizer(6, 2),
}
ALL_KINDS = KINDS | {"gumbel": lambda: GumbelQuantizer(6, 2)}


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


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_codes_moved_before_the_backward_pass_leave_its_gradients(kind):
    def gradients(revive):
        torch.manual_seed(0)
        quantizer, z = ALL_KINDS[kind]().train(), torch.randn(1, 2, 4, 4, requires_grad=True)
        quantized = quantizer(z)
        loss = quantized.grid.pow(3).sum() + quantized.loss
        if revive:
            usage = torch.tensor([0.0, 5, 0, 5, 5, 0])
            generator = torch.Generator().manual_seed(1)
            assert revive_dead_codes(quantizer, z.detach(), usage, 1.0, generator) == 3
        loss.backward()
        found = {name: weight.grad for name, weight in quantizer.named_parameters()}
        return {**found, "z": z.grad}

    plain, revived = gradients(False), gradients(True)
    assert plain["z"].abs().sum() > 0
    for name, gradient in plain.items():
        assert (gradient is None and revived[name] is None) or torch.equal(gradient, revived[name])


@pytest.mark.parametrize("before", [False, True], ids=["after the step", "before backward"])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_training_goes_on_past_revivals(kind, before):
    """Vectors from three places: half of the codes start far away from all."""
    torch.manual_seed(0)
    quantizer = ALL_KINDS[kind]().train()
    encoder = torch.nn.Conv2d(2, 2, 1)
    weights = [weight for weight in quantizer.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam([*encoder.parameters(), *weights], 0.01)
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([[2.0, 0], [0, 2], [-2, -2]])
    usage, moved, losses = torch.ones(6), 0, []
    for step in range(120):
        which = torch.randint(3, (16,), generator=generator)
        images = (places[which] + 0.1 * torch.randn(16, 2, generator=generator)).T.view(1, 2, 4, 4)
        z = encoder(images)
        quantized = quantizer(z)
        losses.append(float((quantized.grid - images).detach().square().mean()))
        usage.lerp_(torch.bincount(quantized.codes.flatten(), minlength=6) * 6 / 16, 0.2)
        optimizer.zero_grad()
        loss = (quantized.grid - images).square().mean() + quantized.loss

        def revive(z=z):
            return revive_dead_codes(quantizer, z.detach(), usage, 0.1, generator)

        looks = step % 10 == 9 and step < 80
        moved += revive() if looks and before else 0
        loss.backward()
        optimizer.step()
        moved += revive() if looks and not before else 0
    assert moved > 0
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
