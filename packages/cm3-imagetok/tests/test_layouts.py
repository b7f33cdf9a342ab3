import pytest
import torch

from cm3_imagetok import PRESETS, VQGAN, LayoutError, VQGANConfig, layouts


def state_of(config: VQGANConfig) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return VQGAN(config).state_dict()


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.startswith("tiny")])
def test_the_shape_of_a_preset_is_found_in_its_parameters(name):
    layout = "llamagen" if name.startswith("llamagen") else "taming"
    config, found = layouts.infer_config(state_of(PRESETS[name]), layout)
    assert (config, found) == (PRESETS[name], name)


def test_another_image_size_is_taken_and_moves_the_attention():
    config, found = layouts.infer_config(state_of(PRESETS["llamagen-vq16"]), "llamagen", 384)
    assert found is None
    assert (config.image_size, config.attention_resolutions) == (384, (24,))
    assert {n: t.shape for n, t in state_of(config).items()} == {
        n: t.shape for n, t in state_of(PRESETS["llamagen-vq16"]).items()
    }


def test_layouts_are_told_apart_by_names_alone():
    names = list(state_of(PRESETS["llamagen-vq16"]))
    assert layouts.guess_layout(names) == "taming"
    assert layouts.guess_layout([n for n in names if "decoder" not in n]) == "hugging-face"
    turned = [
        n.replace(f"up.{i}.", f"up.{4 - i}.") for n in names for i in range(5) if f"up.{i}." in n
    ]
    assert layouts.guess_layout(turned) == "janus"
    assert layouts.guess_layout(["encoder.conv_blocks.0.res.0.conv1.weight"]) == "llamagen"


def test_the_shortest_prefix_wins_and_none_is_an_error():
    pair = ("encoder.conv_in.weight", "quant_conv.weight")
    names = [prefix + name for prefix in ("model.vqmodel.", "ema.model.vqmodel.") for name in pair]
    assert layouts.find_prefix(names) == "model.vqmodel."
    with pytest.raises(LayoutError, match=r"wanted a VQGAN .* got unet\.in"):
        layouts.find_prefix(["unet.in"])


@pytest.mark.parametrize(
    ("change", "layout", "message"),
    [
        ({"patch_size": 2}, "taming", "patch_size"),
        ({"norm_groups": 16}, "hugging-face", "norm_groups"),
        ({"mid_attention": False}, "taming", "mid_attention"),
        ({"mid_attention": False, "local_encoder": True}, "hugging-face", "local_encoder"),
        ({"has_decoder": False}, "taming", "has_decoder"),
        ({"quantizer": "gumbel"}, "hugging-face", "quantizer"),
        ({}, "tensorflow", "layout"),
    ],
)
def test_a_shape_that_a_layout_cannot_hold_is_refused(change, layout, message):
    config = VQGANConfig(**{**vars(VQGANConfig()), **change})
    with pytest.raises(LayoutError, match=message):
        layouts.from_native({}, config, layout)


@pytest.mark.parametrize("broken", ["encoder.conv_out.weight", "quantize.embedding.weight"])
def test_a_missing_parameter_is_named(broken):
    state = state_of(VQGANConfig())
    del state[broken]
    with pytest.raises(LayoutError, match=broken):
        layouts.infer_config(state, "taming")
