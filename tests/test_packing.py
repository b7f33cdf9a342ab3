"""Packed rows train a decoder as the samples one by one do."""

from itertools import islice

import numpy as np
import pytest
import torch

from cm3_model import Decoder, DecoderConfig
from cm3_train import CM3Module, OptimConfig, PackedLoader, Sample, SampleOrder, collate

VOCAB, CODES = 60, (20, 60)
POSITIONS = ["learned", "rotary", "rotary-places"]


def sample(key, epoch):
    """A caption and a picture of some codes."""
    rng = np.random.default_rng((key, epoch))
    text, codes = rng.integers(6, 20, rng.integers(1, 6)), rng.integers(*CODES, rng.integers(3, 12))
    return Sample(np.array([1, *text, 2, *codes, 1]), 1 + key % 2)


@pytest.mark.parametrize("positions", POSITIONS)
def test_packed_rows_cost_what_their_samples_cost_alone(positions):
    config = DecoderConfig(
        vocab_size=VOCAB, max_length=24, num_layers=2, width=32, num_heads=2, positions=positions,
        image_ids=CODES if positions == "rotary-places" else None,
    )  # fmt: skip
    model = Decoder(config, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(weight.numel()))
    module = CM3Module(model, OptimConfig(), CODES)
    loader = PackedLoader(sample, SampleOrder(np.arange(9), 0, 2), 50, pad_id=0)

    def gradients(loss):
        model.zero_grad()
        loss.backward()
        return [weight.grad.clone() for weight in model.parameters()]

    for batch in islice(loader, 3):
        packed, sums = module._losses(model, batch)
        wanted = gradients(packed)
        each = [
            module._losses(model, collate([sample(int(key), epoch)], 0))
            for key, epoch in zip(batch["keys"], epochs_of(batch), strict=True)
        ]
        alone = sum(loss for loss, _ in each)
        assert abs(packed.item() - alone.item()) < 1e-6 * alone.item()
        torch.testing.assert_close(sums, sum(part for _, part in each), rtol=1e-6, atol=1e-6)
        for ours, theirs in zip(wanted, gradients(alone), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def epochs_of(batch):
    """Of each sample: the one in which it is what stands in the batch."""
    epochs = []
    for ids, numbers in zip(batch["input_ids"], batch["documents"], strict=True):
        for number in range(int(numbers.max()) + 1):
            here = ids[numbers == number].tolist()
            if not here or here[0] == 0:
                continue
            key = int(batch["keys"][len(epochs)])
            epochs.append(next(e for e in range(50) if sample(key, e).ids[:-1].tolist() == here))
    return epochs
