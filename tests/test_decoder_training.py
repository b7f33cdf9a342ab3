"""How the decoder starts."""

import pytest
import torch

from cm3leon.training.decoder import add_projected


def test_codes_that_look_alike_start_alike():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 32, generator=generator) + 5
    vectors[1] = vectors[0] + 0.01
    embeddings = torch.full((40, 512), 0.25)
    add_projected(embeddings, vectors, 0.05, seed=0)
    added = embeddings - 0.25
    assert added.std().item() == pytest.approx(0.05, rel=1e-3)
    centred = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    added = torch.nn.functional.normalize(added, dim=1)
    torch.testing.assert_close(added @ added.T, centred @ centred.T, atol=0.25, rtol=0)
    assert added[0] @ added[1] > 0.99


def test_the_start_from_the_codebook_is_drawn_from_the_seed():
    vectors = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    starts = [torch.zeros(8, 16) for _ in range(3)]
    for start, seed in zip(starts, (1, 1, 2), strict=True):
        add_projected(start, vectors, 0.1, seed)
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
