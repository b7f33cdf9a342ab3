import dataclasses
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cm3_model import PRESETS, Decoder, DecoderConfig, num_parameters, operations_a_token

SMALL = {"vocab_size": 37, "max_length": 24, "num_layers": 2, "width": 24, "num_heads": 3}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vocab_size": 0}, "vocab_size"),
        ({"num_layers": 2.0}, "num_layers"),
        ({"num_layers": True}, "num_layers"),
        ({"width": 25}, "width"),
        ({"num_heads": 24, "positions": "rotary"}, "width"),
        ({"activation": "swish"}, "activation"),
        ({"positions": "none"}, "positions"),
        ({"positions": "rotary-places"}, "image_ids"),
        ({"positions": "rotary-places", "image_ids": (0, 10_000)}, "image_ids"),
        ({"positions": "rotary-places", "image_ids": (3, 3)}, "image_ids"),
        ({"positions": "rotary-places", "image_ids": (1.0, 3)}, "image_ids"),
        ({"positions": "rotary", "image_ids": (1, 3)}, "image_ids"),
        ({"qk_norm": 1}, "qk_norm"),
        ({"init_std": 0.0}, "init_std"),
        ({"norm": "batch"}, "norm"),
        ({"norm_placement": "both"}, "norm_placement"),
        ({"num_kv_heads": 2}, "num_kv_heads"),
        ({"mlp_width": 0}, "mlp_width"),
        ({"qk_norm_affine": True}, "qk_norm_affine"),
        ({"rotary_theta": 0.0}, "rotary_theta"),
        ({"qk_norm_eps": 0}, "qk_norm_eps"),
        ({"position_init_std": float("nan")}, "position_init_std"),
    ],
)
def test_a_bad_value_is_refused_by_name(change, named):
    with pytest.raises(ValueError, match=f"^{named}: .*want.*"):
        DecoderConfig(**(SMALL | change))


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DecoderConfig(**SMALL).width = 48


# Embeddings and positions, then 12 D^2 a layer: the sum over the paper's table, done by hand.
# Chameleon: 2 * 65536 D, and 4 D^2 + 3 * 11008 D + 2 D + 4 * 32 * 128 a layer, and D.
@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("cm3leon-350m", 372.2),
        ("cm3leon-760m", 784.9),
        ("cm3leon-7b", 6987.7),
        ("chameleon-7b", 7013.7),
    ],
)
def test_preset_sizes_are_those_of_the_paper(name, millions):
    with torch.device("meta"):
        model = Decoder(PRESETS[name])
    built = sum(weight.numel() for weight in model.parameters())
    assert built == num_parameters(PRESETS[name])
    assert built / 1e6 == pytest.approx(millions, abs=0.1)


def test_num_parameters_counts_what_is_built(decoder):
    built = sum(weight.numel() for weight in decoder.parameters())
    assert built == num_parameters(decoder.config)


def first_loss(preset):
    """Cross-entropy at the start, of a narrow equivalent: one layer, one key head, 2,048 ids.

    Blocks write nothing at the start, so their number and their inner sizes do not matter. The ids
    that are neither read nor wanted stand for all others of the vocabulary.
    """
    sample = 2048
    config = dataclasses.replace(
        preset, vocab_size=sample, num_layers=1, max_length=64, mlp_width=8, num_kv_heads=1
    )
    model = Decoder(config, torch.Generator().manual_seed(0))
    ids = torch.randperm(sample, generator=torch.Generator().manual_seed(1))[:128].view(2, 64)
    logits = model(ids[:1]).double()  # (1, 64, sample)
    own = logits.gather(-1, ids[:1, :, None])
    others = logits.scatter(-1, ids[:1, :, None], -math.inf).logsumexp(-1, keepdim=True)
    others = others + math.log((preset.vocab_size - 1) / (sample - 1))
    losses = (
        torch.cat([own, others], -1).logsumexp(-1) - logits.gather(-1, ids[1:, :, None])[..., 0]
    )
    return float(losses.mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
@torch.no_grad()
def test_a_preset_starts_near_the_loss_of_a_guess(name):
    # Logits of standard deviation s add s^2 / 2; Chameleon's start at 1.3.
    assert first_loss(PRESETS[name]) == pytest.approx(math.log(PRESETS[name].vocab_size), abs=1)


@pytest.mark.slow
@torch.no_grad()
def test_a_tied_7b_would_not():
    assert first_loss(dataclasses.replace(PRESETS["cm3leon-7b"], tie_embeddings=True)) > 20


@pytest.mark.parametrize(
    "parts", [{}, {"positions": "rotary"}, {"tie_embeddings": False}, {"activation": "swiglu"}]
)
def test_operations_are_those_that_pytorch_counts(parts):
    config = DecoderConfig(
        vocab_size=50, max_length=32, num_layers=2, width=32, num_heads=4, **parts
    )
    model = Decoder(config, torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(3, 32, dtype=torch.long)).sum().backward()
    counts = counter.get_flop_counts()["Global"]
    products = counts.pop(torch.ops.aten.mm)
    attention = 12 * config.num_layers * config.width * 32
    assert products == (operations_a_token(config, 32) - attention) * 3 * 32
    # forward has two products, backward twice as many, and kernels compute one of them again
    assert sum(counts.values()) == attention * 14 / 12 * 3 * 32
