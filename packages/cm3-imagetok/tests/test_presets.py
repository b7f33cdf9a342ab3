import re
from pathlib import Path

import pytest
import torch

from cm3_imagetok import PRESETS, VQGAN

PARAMETERS = {
    "cm3leon-256": 61_632_387,
    "chameleon-512": 68_718_467,
    "taming-gumbel-f8": 68_995_971,
    "taming-f16-16384": 76_073_859,
    "llamagen-vq16": 71_883_403,  # 72M in arXiv 2406.06525, table 3
    "llamagen-vq8": 70_109_835,  # 70M there
    "tiny-64": 832_496,
    "tiny-128": 832_496,
}


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_has_its_grid_and_size(name):
    config = PRESETS[name]
    with torch.device("meta"):
        model = VQGAN(config)
        codes = model.encode(torch.empty(1, 3, config.image_size, config.image_size))
    assert codes.shape == (1, config.grid_size, config.grid_size)
    assert parameters(model) == PARAMETERS[name]


def test_the_readme_lists_the_parameters():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \|.*\| ([\d,]+) \|$", readme, re.MULTILINE))
    assert {name: int(count.replace(",", "")) for name, count in rows.items()} == PARAMETERS


@pytest.mark.parametrize(
    ("name", "change", "more"),
    [
        ("llamagen-vq16", {}, 0),
        ("llamagen-vq8", {"channel_multiplier": [1, 2, 2, 4]}, 0),
        ("taming-f16-16384", {"embed_dim": 256}, 0),
        # the projection: a 1 x 1 convolution from 256 channels to 8192 classes
        (
            "taming-gumbel-f8",
            {"embed_dim": 256, "num_embeddings": 8192, "channel_multiplier": [1, 1, 2, 4]},
            257 * 8192,
        ),
    ],
)
def test_sizes_are_those_of_an_independent_model(name, change, more):
    janus = pytest.importorskip("transformers.models.janus.modeling_janus")
    with torch.device("meta"):
        peer = janus.JanusVQVAE(janus.JanusVQVAEConfig(**change))
    assert PARAMETERS[name] == parameters(peer) + more


def test_the_encoder_alone_has_chameleons_size():
    chameleon = pytest.importorskip("transformers.models.chameleon.modeling_chameleon")
    with torch.device("meta"):
        peer = chameleon.ChameleonVQVAE(chameleon.ChameleonVQVAEConfig())
        model = VQGAN(PRESETS["chameleon-512"])
    assert parameters(model) - parameters(model.decoder) == parameters(peer)
