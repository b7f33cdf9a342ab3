import importlib.util
from pathlib import Path

import pytest
import torch

from cm3_model import DecoderConfig
from cm3_model.chameleon_configs import from_hf_config, from_params, to_hf_config, to_params

spec = importlib.util.spec_from_file_location("decoders", Path(__file__).with_name("conftest.py"))
decoders = importlib.util.module_from_spec(spec)
spec.loader.exec_module(decoders)
SHAPES = decoders.SHAPES


@pytest.fixture(params=SHAPES)
def config(request):
    rest = {"max_length": 24, "num_layers": 2, "norm_eps": 1e-6, "num_kv_heads": 4}
    return DecoderConfig(**(rest | SHAPES[request.param] | {"init_std": 0.02}))


def test_a_config_comes_back_from_either_file(config):
    assert from_hf_config(to_hf_config(config), Path("here")) == config
    tensors = {
        "output.weight": torch.empty(config.vocab_size, 1),
        "layers.0.feed_forward.w1.weight": torch.empty(config.mlp_hidden, 1),
    }
    params = to_params(config)
    assert from_params(params, tensors) == config
    assert from_params({"model": params}, tensors) == config
