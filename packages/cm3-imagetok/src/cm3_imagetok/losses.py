"""Losses of a VQGAN's pictures: pixels, optionally weighted by region, and a discriminator.

Esser et al., arXiv 2012.09841, section 3.1; regions in the manner of Make-A-Scene (Gafni et al.,
arXiv 2203.13131). The quantizer brings its own loss (`Quantized.loss`), and
`cm3_imagetok.perceptual` the perceptual one. Pictures are (B, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OPPONENT = (
    (3**-0.5, 3**-0.5, 3**-0.5),
    (2**-0.5, -(2**-0.5), 0.0),
    (6**-0.5, 6**-0.5, -2 * 6**-0.5),
)
"""Red, green and blue as brightness, red against green, and yellow against blue; orthonormal."""


def reconstruction_loss(
    reconstruction: Tensor,
    images: Tensor,
    l1_weight: float = 1.0,
    l2_weight: float = 0.0,
    region_weights: Tensor | None = None,
    chroma_weight: float = 1.0,
) -> Tensor:
    """Return the weighted L1 and L2 between pictures (B, 3, H, W), a scalar.

    Outlines differ from paper in brightness far more than colours differ from each other, so short
    trainings learn shapes and leave colours pale. `chroma_weight` evens that out.

    Args:
        reconstruction: Pictures (B, 3, H, W).
        images: The originals (B, 3, H, W).
        l1_weight: Weight of the mean absolute error.
        l2_weight: Weight of the mean squared error.
        region_weights: Weights (B, 1, H, W) of `region_weights`; the means become weighted means,
            so the loss keeps its scale.
        chroma_weight: How much more squared errors of the two colour differences count than those
            of brightness, in the orthonormal space of `OPPONENT`.

    Raises:
        ValueError: Both weights are 0, or `chroma_weight` is not above 0.
    """
    if chroma_weight <= 0:
        raise ValueError(f"chroma_weight: wanted above 0, got {chroma_weight}")
    if chroma_weight != 1:
        scale = torch.tensor([1.0, chroma_weight**0.5, chroma_weight**0.5])
        space = (torch.tensor(OPPONENT) * scale[:, None]).to(images)  # (3, 3)
        reconstruction, images = (
            torch.einsum("ij,bjhw->bihw", space, picture) for picture in (reconstruction, images)
        )
    if l1_weight <= 0 and l2_weight <= 0:
        raise ValueError(f"weights: wanted one above 0, got l1 {l1_weight} and l2 {l2_weight}")
    loss = images.new_zeros(())
    for weight, distance in ((l1_weight, F.l1_loss), (l2_weight, F.mse_loss)):
        if weight <= 0:
            continue
        if region_weights is None:
            loss = loss + weight * distance(reconstruction, images)
        else:
            errors = distance(reconstruction, images, reduction="none").mean(1, keepdim=True)
            loss = loss + weight * (errors * region_weights).sum() / region_weights.sum()
    return loss


def region_weights(
    boxes: Sequence[Sequence[Sequence[float]]], height: int, width: int, weight: float = 4.0
) -> Tensor:
    """Return weights for faces and salient objects: `weight` inside any box, 1 elsewhere.

    Make-A-Scene compares features of a face network inside its boxes. Weighting the pixels needs no
    second network.

    Args:
        boxes: The boxes (x0, y0, x1, y1) of each of B pictures in pixels, right and bottom
            excluded, clipped to the picture.
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.
        weight: Weight of a pixel whose centre lies in a box, above 0.

    Returns:
        Weights (B, 1, height, width), float32.

    Raises:
        ValueError: A box is not four numbers in order, or the weight is not above 0.
    """
    if weight <= 0:
        raise ValueError(f"weight: wanted above 0, got {weight}")
    weights = torch.ones(len(boxes), 1, height, width)
    y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    for index, of_picture in enumerate(boxes):
        for box in of_picture:
            if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):
                raise ValueError(
                    f"boxes[{index}]: wanted (x0, y0, x1, y1) with x0 < x1 and y0 < y1, got {box}"
                )
            x0, y0, x1, y1 = box
            inside = ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))
            weights[index, 0, inside] = weight
    return weights


class PatchDiscriminator(nn.Module):
    """A discriminator of overlapping patches of a picture (Isola et al., arXiv 1611.07004).

    Layers and parameter names are taming-transformers' N-layer discriminator's.

    Args:
        channels: Channels of the first layer; each further layer doubles them, up to eight times.
        layers: Convolutions that halve the side; with 3, a patch is 70 pixels wide.
    """

    def __init__(self, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        main: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
            stride = 2 if i < layers - 1 else 1
            main += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            ]
        self.main = nn.Sequential(*main, nn.Conv2d(widths[-1], 1, 4, padding=1))
        for module in self.main:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (B, 3, H, W) -> (B, 1, h, w), high where a patch looks real."""
        return self.main(images)


class AdversarialLoss(nn.Module):
    """A discriminator with its hinge loss, an adaptive weight and a delayed start.

    In each step, add `generator` to the VQGAN's loss; after the VQGAN's update, minimise
    `discriminator_loss` with an optimizer of its own, over this module's `parameters()`.

    Args:
        discriminator: A module from pictures to logits; None makes a `PatchDiscriminator`.
        weight: Weight of the generator's loss, a factor on the adaptive weight.
        start: First step of the discriminator, counted from 0; before it both losses are 0 and
            cost nothing.
    """

    def __init__(
        self, discriminator: nn.Module | None = None, weight: float = 0.8, start: int = 0
    ) -> None:
        super().__init__()
        self.discriminator = PatchDiscriminator() if discriminator is None else discriminator
        self.weight = weight
        self.start = start

    def generator(
        self, reconstruction: Tensor, base_loss: Tensor, last_layer: Tensor, step: int
    ) -> Tensor:
        """Return the VQGAN's part, a scalar: the weighted `-mean(logits)`.

        Args:
            reconstruction: Pictures (B, 3, H, W), with their graph.
            base_loss: Pixel and perceptual loss, the scalar that sets the adaptive weight.
            last_layer: The decoder's last weight, `vqgan.decoder.conv_out.weight`.
            step: The current step.
        """
        if step < self.start:
            return reconstruction.new_zeros(())
        trained = [p for p in self.discriminator.parameters() if p.requires_grad]
        for parameter in trained:  # the discriminator learns only in its own step
            parameter.requires_grad_(False)
        loss = -self.discriminator(reconstruction).mean()
        for parameter in trained:
            parameter.requires_grad_(True)
        return self.weight * adaptive_weight(base_loss, loss, last_layer) * loss

    def discriminator_loss(self, images: Tensor, reconstruction: Tensor, step: int) -> Tensor:
        """Return the discriminator's part, a scalar: `hinge_loss` of real and made pictures."""
        if step < self.start:
            return images.new_zeros(())
        real = self.discriminator(images.detach())
        return hinge_loss(real, self.discriminator(reconstruction.detach()))


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return `(mean(relu(1 - real)) + mean(relu(1 + fake))) / 2` of logits of any shape."""
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())


def adaptive_weight(base_loss: Tensor, gan_loss: Tensor, last_layer: Tensor) -> Tensor:
    """Return the weight that makes both gradients at the decoder's last layer equally large.

    `|d base / d w| / (|d gan / d w| + 1e-4)`, at most 1e4, without a gradient (arXiv 2012.09841,
    equation 7). Both graphs are kept for the backward pass.
    """
    (base,) = torch.autograd.grad(base_loss, last_layer, retain_graph=True)
    (gan,) = torch.autograd.grad(gan_loss, last_layer, retain_graph=True)
    return (base.norm() / (gan.norm() + 1e-4)).clamp(0.0, 1e4).detach()
