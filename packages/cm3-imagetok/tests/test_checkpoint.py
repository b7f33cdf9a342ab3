import json
import resource

import pytest
import torch

from cm3_imagetok import CheckpointError, load_vqgan, save_vqgan


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
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
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
