import math

import numpy as np
import pytest
import torch

from cm3_decoding import classifier_free_guidance, image_text_guidance


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


@pytest.fixture
def three():
    return torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(1)).unbind()


@pytest.mark.parametrize(
    ("text", "image"), [(7.5, 1.5), (3.0, 0.0), (0.5, 2.0), (2.0, 2.0), (3.0, 1.0)]
)
def test_three_streams_are_instructpix2pixs_equation(three, text, image):
    cond, image_cond, uncond = (stream.numpy().astype(np.float64) for stream in three)
    # Brooks et al., arXiv 2211.09800, equation (3).
    wanted = uncond + image * (image_cond - uncond) + text * (cond - image_cond)
    got = image_text_guidance(*three, text_scale=text, image_scale=image)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-5, atol=1e-4)


def test_three_streams_at_1_are_the_conditional_one(three):
    assert torch.equal(image_text_guidance(*three, text_scale=1.0, image_scale=1.0), three[0])


@pytest.mark.parametrize(("text", "image"), [(3.0, 1.0), (3.0, 3.0), (7.5, 1.5), (0.0, 0.5)])
def test_what_the_conditional_stream_rules_out_stays_ruled_out(three, text, image):
    """Whatever the others say; what another one alone rules out is an error, so never finite."""
    cond, image_cond, uncond = (stream.clone() for stream in three)
    wanted = [
        classifier_free_guidance(cond, uncond, text),
        image_text_guidance(cond, image_cond, uncond, text_scale=text, image_scale=image),
    ]
    cond[:, :3] = image_cond[:, 1:4] = uncond[:, 2:4] = -math.inf
    found = [
        classifier_free_guidance(cond, uncond, text),
        image_text_guidance(cond, image_cond, uncond, text_scale=text, image_scale=image),
    ]
    for guided, before in zip(found, wanted, strict=True):
        assert bool(guided[:, :3].isneginf().all())
        assert not bool((guided[:, 3].isfinite() | guided[:, 3].isneginf()).any())
        assert torch.equal(guided[:, 4:], before[:, 4:])
