from functools import partial

import pytest
import torch

from cm3_model import Decoder, DecoderConfig

VARIANTS = {
    "paper": {},
    "relu": {"activation": "relu"},
    "rotary": {"positions": "rotary"},
    "places": {"positions": "rotary-places", "image_ids": (4, 33)},
    "qk-norm": {"qk_norm": True},
    "untied": {"tie_embeddings": False},
    "swiglu": {"activation": "swiglu", "mlp_width": 40},
    "rms": {"norm": "rms", "norm_eps": 1e-3},
    "swin": {"norm_placement": "after"},
    "grouped": {"num_kv_heads": 1, "qk_norm": True, "positions": "rotary"},
    "chameleon": {
        "activation": "swiglu",
        "mlp_width": 40,
        "norm": "rms",
        "positions": "rotary",
        "rotary_theta": 500.0,
        "qk_norm": True,
        "qk_norm_affine": True,
        "tie_embeddings": False,
    },
    "all": {"positions": "rotary", "qk_norm": True, "tie_embeddings": False, "mlp_ratio": 3},
}

CHAMELEON = VARIANTS["chameleon"] | {"width": 32, "num_heads": 4, "vocab_size": 60}
SHAPES = {
    "7b": CHAMELEON,
    "swin": CHAMELEON | {"norm_placement": "after", "init_std": 0.02},
    "grouped": CHAMELEON | {"num_kv_heads": 2},
}
"""Chameleons of several kinds."""


def make_decoder(**changes):
    """A small decoder with large random weights, so that no part of it is a no-op."""
    values = {"vocab_size": 37, "max_length": 24, "num_layers": 2, "width": 24, "num_heads": 3}
    model = Decoder(DecoderConfig(**(values | changes))).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3, generator=generator)
    return model


def alike_within_shards(model, shards):
    """Give all heads of a shard the same norms, as the original layout has it."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "query_norm" in name or "key_norm" in name:
                groups = weight.view(shards, -1, weight.shape[-1])
                groups.copy_(groups[:, :1].expand_as(groups).clone())
    return model


@pytest.fixture(params=VARIANTS)
def decoder(request):
    return make_decoder(**VARIANTS[request.param])


@pytest.fixture
def make():
    """`make_decoder`, with room for 512 ids."""
    return partial(make_decoder, max_length=512)


@pytest.fixture
def paper_decoder():
    return make_decoder()


@pytest.fixture
def ids():
    return torch.randint(37, (3, 24), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")
