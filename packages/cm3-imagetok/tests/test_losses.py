import pytest
import torch
from torch import nn

from cm3_imagetok import (
    AdversarialLoss,
    PatchDiscriminator,
    adaptive_weight,
    hinge_loss,
    reconstruction_loss,
    region_weights,
)


def test_reconstruction_loss_weights():
    a, b = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    assert float(reconstruction_loss(a, b, 1.0, 0.0)) == 0.5
    assert float(reconstruction_loss(a, b, 0.0, 2.0)) == 0.5
    assert float(reconstruction_loss(a, b, 1.0, 2.0)) == 1.0
    with pytest.raises(ValueError, match="weights"):
        reconstruction_loss(a, b, 0.0, 0.0)


def test_chroma_weight_counts_differences_between_channels_alone():
    a = torch.rand(2, 3, 5, 6)
    grey = a + 0.1 * torch.randn(2, 1, 5, 6)  # the same in all channels: brightness
    for weight in (0.5, 4.0):
        torch.testing.assert_close(
            reconstruction_loss(a, grey, 0.0, 1.0, chroma_weight=weight),
            reconstruction_loss(a, grey, 0.0, 1.0),
        )
        noise = torch.randn(2, 3, 5, 6)
        tinted = a + noise - noise.mean(1, keepdim=True)  # brightness stays
        torch.testing.assert_close(
            reconstruction_loss(a, tinted, 0.0, 1.0, chroma_weight=weight),
            weight * reconstruction_loss(a, tinted, 0.0, 1.0),
        )
    with pytest.raises(ValueError, match="chroma_weight: wanted above 0, got 0"):
        reconstruction_loss(a, grey, chroma_weight=0)


def test_region_weights_are_brute_force_and_keep_the_scale():
    boxes = [[(1.0, 0.0, 3.0, 2.5), (-5, 3, 2, 99)], []]
    found = region_weights(boxes, 5, 6, 3.0)
    for y in range(5):
        for x in range(6):
            inside = any(x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1 for x0, y0, x1, y1 in boxes[0])
            assert found[0, 0, y, x] == (3.0 if inside else 1.0)
    assert (found[1] == 1).all()
    a, b = torch.rand(2, 3, 5, 6), torch.rand(2, 3, 5, 6)
    even = torch.full((2, 1, 5, 6), 7.0)
    torch.testing.assert_close(
        reconstruction_loss(a, b, 1.0, 2.0, even), reconstruction_loss(a, b, 1.0, 2.0)
    )
    wanted = ((a - b).abs() * found).sum() / (3 * found.sum())
    torch.testing.assert_close(reconstruction_loss(a, b, region_weights=found), wanted)


@pytest.mark.parametrize("box", [(1, 2, 3), (3, 0, 1, 2), (0, 0, 0, 1)])
def test_a_wrong_box_is_named(box):
    with pytest.raises(ValueError, match=r"boxes\[1\]"):
        region_weights([[], [box]], 4, 4)
    with pytest.raises(ValueError, match="weight"):
        region_weights([[]], 4, 4, 0.0)


def test_the_discriminator_is_tamings():
    discriminator = PatchDiscriminator()
    # pix2pix's 2.769 M (arXiv 1611.07004) less the first layer's 3 more input channels
    assert sum(p.numel() for p in discriminator.parameters()) == 2_768_705 - 3 * 64 * 16
    shapes = {name: tuple(p.shape) for name, p in discriminator.state_dict().items() if p.ndim == 4}
    assert shapes == {
        "main.0.weight": (64, 3, 4, 4),
        "main.2.weight": (128, 64, 4, 4),
        "main.5.weight": (256, 128, 4, 4),
        "main.8.weight": (512, 256, 4, 4),
        "main.11.weight": (1, 512, 4, 4),
    }
    assert discriminator(torch.zeros(2, 3, 64, 64)).shape == (2, 1, 6, 6)


def test_a_patch_of_the_discriminator_is_70_pixels_wide():
    discriminator = PatchDiscriminator(channels=4).eval()
    images = torch.randn(1, 3, 128, 128, requires_grad=True)
    discriminator(images)[0, 0, 7, 7].backward()
    seen = images.grad.abs().sum((0, 1))
    assert [int((seen.sum(dim) > 0).sum()) for dim in (0, 1)] == [70, 70]


def test_hinge_loss_is_zero_beyond_the_margins():
    assert float(hinge_loss(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -2.0]))) == 0.0
    assert float(hinge_loss(torch.tensor([0.0]), torch.tensor([0.5]))) == pytest.approx(1.25)


def test_adaptive_weight_makes_the_gradients_alike():
    weight = torch.randn(4, requires_grad=True)
    base, gan = (3.0 * weight).sum(), (weight * torch.tensor([0.1, 0.2, 0.0, 0.0])).sum()
    factor = adaptive_weight(base, gan, weight)
    assert float(factor) == pytest.approx(6.0 / (0.05**0.5 + 1e-4))
    (gradient,) = torch.autograd.grad(factor * gan, weight)
    assert float(gradient.norm()) == pytest.approx(6.0, rel=1e-3)


def made_pictures() -> tuple[nn.Conv2d, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    layer, images = nn.Conv2d(3, 3, 1), torch.rand(2, 3, 32, 32) * 2 - 1
    return layer, images, layer(images)


def test_nothing_happens_before_the_start():
    layer, images, made = made_pictures()
    adversary = AdversarialLoss(PatchDiscriminator(8, 2), start=5)
    base = reconstruction_loss(made, images)
    for step, active in ((0, False), (4, False), (5, True)):
        assert (float(adversary.generator(made, base, layer.weight, step).detach()) != 0) == active
        found = adversary.discriminator_loss(images, made, step)
        assert (float(found.detach()) != 0) == active


def test_each_side_trains_only_itself():
    layer, images, made = made_pictures()
    adversary = AdversarialLoss(PatchDiscriminator(8, 2))
    base = reconstruction_loss(made, images)
    (base + adversary.generator(made, base, layer.weight, 0)).backward()
    assert layer.weight.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in adversary.parameters())
    layer.weight.grad = None
    adversary.discriminator_loss(images, made, 0).backward()
    assert layer.weight.grad is None
    assert all(p.grad is not None for p in adversary.parameters())


def test_the_discriminator_learns_to_tell_and_the_generator_to_be_taken_for_real():
    torch.manual_seed(0)
    adversary = AdversarialLoss(PatchDiscriminator(8, 1), weight=1.0)
    optimizer = torch.optim.Adam(adversary.parameters(), 1e-2)
    real, shift = torch.zeros(4, 3, 16, 16), nn.Parameter(torch.ones(1, 3, 1, 1))
    for step in range(20):
        loss = adversary.discriminator_loss(real, real + shift, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5
    adversary.eval()
    made = real + shift
    adversary.generator(made, made.square().mean(), shift, 20).backward()
    assert float(shift.grad.sum()) > 0  # downhill is towards the real pictures
