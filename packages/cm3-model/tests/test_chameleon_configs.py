import importlib.util
from pathlib import Path

import pytest
import torch

from cm3_model import CheckpointError, DecoderConfig
from cm3_model.chameleon_configs import from_hf_config, from_params, to_hf_config, to_params

spec = importlib.util.spec_from_file_location("decoders", Path(__file__).with_name("conftest.py"))
decoders = importlib.util.module_from_spec(spec)
spec.loader.exec_module(decoders)
SHAPES = decoders.SHAPES


@pytest.fixture(params=SHAPES)
def config(request):
    rest = {"max_length": 24, "num_layers": 2, "norm_eps": 1e-6, "num_kv_heads": 4}
    return DecoderConfig(**(rest | SHAPES[request.param] | {"init_std": 0.02}))


def tensors(config):
    """The tensors from which the original layout's sizes are read."""
    return {
        "output.weight": torch.empty(config.vocab_size, 1),
        "layers.0.feed_forward.w1.weight": torch.empty(config.mlp_hidden, 1),
    }


def test_a_config_comes_back_from_either_file(config):
    assert from_hf_config(to_hf_config(config), Path("here")) == config
    params = to_params(config)
    assert from_params(params, tensors(config), Path("here")) == config
    assert from_params({"model": params}, tensors(config), Path("here")) == config


SCALED = [
    {"type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "llama3", "factor": 8.0},
    {"rope_type": "default", "type": "linear"},
    {"rope_type": "default", "partial_rotary_factor": 0.5},
    {"factor": 2.0},
]


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("scaled", SCALED, ids=str)
def test_scaled_rotary_positions_are_refused_by_name(config, key, scaled):
    values = to_hf_config(config) | {key: scaled}
    with pytest.raises(CheckpointError, match=f"here: {key}: wanted plain rotary positions, got"):
        from_hf_config(values, Path("here"))
    with pytest.raises(CheckpointError, match=f"here: {key}: wanted plain"):
        from_params(to_params(config) | {key: scaled}, tensors(config), Path("here"))


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"}, {"hidden_act": "relu"}, {"attention_bias": True},
        {"mlp_bias": True}, {"tie_word_embeddings": True}, {"head_dim": 7},
        {"partial_rotary_factor": 0.5}, {"sliding_window": 8}, {"final_logit_softcapping": 30.0},
        {"attn_logit_softcapping": 50.0}, {"logit_scale": 0.5}, {"logits_scaling": 8.0},
        {"residual_multiplier": 0.2}, {"embedding_multiplier": 12.0},
        {"attention_multiplier": 0.1}, {"norm_type": "layer"}, {"use_qk_norm": False},
        {"qk_layernorm": False},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_decoder_does_not_do_is_refused_by_name(config, change):
    (name,) = change
    with pytest.raises(CheckpointError, match=f"here: {name}: wanted .*, got {change[name]!r}"):
        from_hf_config(to_hf_config(config) | change, Path("here"))


@pytest.mark.parametrize("value", ["yes", 1, [True]])
def test_a_swin_norm_that_is_neither_true_nor_false_is_named(config, value):
    message = "swin_norm: wanted true or false, got"
    with pytest.raises(CheckpointError, match=f"here: .*{message}"):
        from_hf_config(to_hf_config(config) | {"swin_norm": value}, Path("here"))
    with pytest.raises(ValueError, match=message):
        from_params(to_params(config) | {"swin_norm": value}, tensors(config), Path("here"))


@pytest.mark.parametrize(
    "change",
    [{"use_scaled_rope": True}, {"qk_normalization": False}, {"logit_scale": 2}],
)
def test_params_that_the_decoder_does_not_do_are_refused_by_name(config, change):
    with pytest.raises(CheckpointError, match=f"here: {next(iter(change))}: wanted"):
        from_params(to_params(config) | change, tensors(config), Path("here"))


def test_keys_without_a_meaning_for_the_weights_may_pass(config):
    values = to_hf_config(config)
    values |= {"torch_dtype": "float16", "use_cache": False, "attention_dropout": 0.1, "x": 1}
    values |= {"rope_scaling": None, "rope_theta": 3.0, "hidden_act": "swish"}
    values |= {"logit_scale": 1.0, "norm_type": "rms", "use_qk_norm": True, "qk_layernorm": None}
    assert from_hf_config(values, Path("here")) == config
    del values["rope_parameters"]
    assert from_hf_config(values, Path("here")).rotary_theta == 3.0
    values["rope_scaling"] = {"type": "default", "rope_theta": 7.0}
    assert from_hf_config(values, Path("here")).rotary_theta == 7.0
