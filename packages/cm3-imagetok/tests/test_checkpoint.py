import hashlib
import json
import os
import resource

import pytest
import torch

from cm3_imagetok import VQGAN, CheckpointError, load_vqgan, save_vqgan


def test_round_trip_is_exact(tokenizer, tmp_path):
    save_vqgan(tokenizer, tmp_path)
    loaded = load_vqgan(tmp_path)
    assert loaded.config == tokenizer.config
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.equal(loaded.encode(images), tokenizer.encode(images))
    for name, tensor in tokenizer.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_a_flipped_byte_is_caught(tokenizer, tmp_path):
    save_vqgan(tokenizer, tmp_path)
    (path,) = tmp_path.glob("model-*.safetensors")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model-\w{16}\.safetensors: damaged"):
        load_vqgan(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("component", "cm3-imagetok.vqgan", "wanted component 'cm3-imagetok/vqgan'"),
        ("interface_version", "2.0", "interface version"),
        ("config", {"colour": 1}, "colour"),
    ],
)
def test_foreign_configs_are_refused(tokenizer, tmp_path, field, value, message):
    save_vqgan(tokenizer, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(CheckpointError, match=message):
        load_vqgan(tmp_path)


def test_missing_and_broken_files_are_named(tokenizer, tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        load_vqgan(tmp_path)
    save_vqgan(tokenizer, tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="wanted JSON"):
        load_vqgan(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tokenizer, tmp_path, value):
    """With them every code would be 0, without a word."""
    with torch.no_grad():
        tokenizer.encoder.conv_in.bias[1] = value
    save_vqgan(tokenizer, tmp_path)
    words = r"model-\w{16}\.safetensors: encoder\.conv_in\.bias: wanted finite numbers, got NaN"
    with pytest.raises(CheckpointError, match=words):
        load_vqgan(tmp_path)


def test_a_full_disk_leaves_the_old_model(tokenizer, tmp_path):
    save_vqgan(tokenizer, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"could not write .*model\.safetensors"):
            save_vqgan(tokenizer, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def changed(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_groups": 0}, {"channels": 0}, {"channels": "8"}, {"channels": None},
        {"channels": 8.5}, {"channel_multipliers": []}, {"channel_multipliers": 3},
        {"channel_multipliers": [1, "2"]}, {"channel_multipliers": [[1]]}, {"num_codes": -1},
        {"quantizer": 3}, {"quantizer": ["ema"]},
        {"z_channels": True}, {"embed_dim": True}, {"num_codes": True},
        {"channel_multipliers": [True]},
        {"image_size": {"a": 1}}, {"patch_size": 0}, {"attention_resolutions": None},
    ],
)  # fmt: skip
def test_a_shape_that_cannot_be_built_is_one_error(tokenizer, tmp_path, changes):
    save_vqgan(tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["config"] | changes
    changed(tmp_path, config=config)
    with pytest.raises(CheckpointError, match=r"config\.json: damaged, the config's SHA-256"):
        load_vqgan(tmp_path)
    sealed = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    changed(tmp_path, config_sha256=sealed)
    (name,) = changes
    with pytest.raises(CheckpointError, match=rf"config\.json: config: {name}: wanted"):
        load_vqgan(tmp_path)


def test_a_changed_shape_is_damage(tokenizer, tmp_path):
    save_vqgan(tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    changed(tmp_path, config=config | {"beta": 0.5})  # would fit the weights
    with pytest.raises(CheckpointError, match="damaged"):
        load_vqgan(tmp_path)


def test_a_folder_of_version_0_1_loads(tokenizer, tmp_path):
    save_vqgan(tokenizer, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / saved.pop("weights")).rename(tmp_path / "model.safetensors")
    del saved["config_sha256"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(load_vqgan(tmp_path).encode(images), tokenizer.encode(images))
    other = VQGAN(tokenizer.config)
    save_vqgan(other, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_save_that_is_killed_leaves_a_whole_model(tokenizer, tmp_path, monkeypatch):
    """After each step of the save, the old model or the new one loads."""
    other = VQGAN(tokenizer.config)
    save_vqgan(tokenizer, tmp_path)
    state = []
    replace = os.replace

    def record(*paths):
        for done in (False, True):
            if done:
                replace(*paths)
            state.append(load_vqgan(tmp_path).codebook_sha256)

    monkeypatch.setattr(os, "replace", record)
    save_vqgan(other, tmp_path)
    old, new = tokenizer.codebook_sha256, other.codebook_sha256
    assert state == [old, old, old, new] and old != new
    assert load_vqgan(tmp_path).codebook_sha256 == new
    assert len(list(tmp_path.iterdir())) == 2  # nothing of the old one is left
    save_vqgan(other, tmp_path)
    assert load_vqgan(tmp_path).codebook_sha256 == new


def test_another_programs_folder_is_not_written_to(tokenizer, tmp_path):
    for content in ('{"model_type": "chameleon"}', "{", "[" * 100_000):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"config\.json: wanted"):
            save_vqgan(tokenizer, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
        assert (tmp_path / "config.json").read_text() == content


@pytest.mark.parametrize(
    "name", ["../a.safetensors", "/a.safetensors", "a\0b", "", ".", "..", 3, None]
)
def test_weights_lie_in_the_folder(tokenizer, tmp_path, name):
    save_vqgan(tokenizer, tmp_path)
    changed(tmp_path, weights=name)
    with pytest.raises(CheckpointError, match="weights: wanted the name of a file"):
        load_vqgan(tmp_path)
