import numpy as np
import pytest
import torch

from cm3_decoding import classifier_free_guidance


@pytest.fixture
def streams():
    return torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(0)).unbind()


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0, 7.5])
def test_guidance_is_the_papers_equation(streams, scale):
    cond, uncond = (stream.numpy().astype(np.float64) for stream in streams)
    wanted = np.array(
        [
            [u + scale * (c - u) for c, u in zip(*rows, strict=True)]
            for rows in zip(cond, uncond, strict=True)
        ]
    )
    got = classifier_free_guidance(*streams, scale)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_scale_1_is_the_conditional_stream_and_0_the_other(streams):
    cond, uncond = streams
    assert torch.equal(classifier_free_guidance(cond, uncond, 1.0), cond)
    assert torch.equal(classifier_free_guidance(cond, uncond, 0.0), uncond)
