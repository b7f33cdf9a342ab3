import json
import re
import resource

import pytest
import torch
from safetensors.torch import load_file, save_file

from cm3_imagetok import (
    VQGAN,
    CheckpointError,
    VQGANConfig,
    export_vqgan,
    import_vqgan,
    save_vqgan,
)

SMALL = VQGANConfig(
    image_size=32,
    channels=32,
    channel_multipliers=(1, 2, 2),
    num_res_blocks=2,
    attention_resolutions=(8,),
    z_channels=16,
    embed_dim=8,
    num_codes=64,
)


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Weights such that no branch is silent and activations stay near 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if "embed" in name:
            tensor.copy_(noise)
        elif tensor.ndim > 1:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
        else:
            tensor.copy_(0.1 * noise + float("norm" in name and "weight" in name))


def model(**change) -> VQGAN:
    made = VQGAN(VQGANConfig(**{**vars(SMALL), **change})).eval()
    randomise(made)
    return made


def pictures(height: int = 32, width: int = 32, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, height, width, generator=generator) * 2 - 1


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("quantizer", ["nearest", "normalised", "gumbel", "ema"])
def test_taming_write_read_write_is_exact(tmp_path, quantizer):
    first = model(quantizer=quantizer)
    export_vqgan(first, tmp_path / "first.ckpt", "taming")
    found = import_vqgan(tmp_path / "first.ckpt", 32)
    assert (found.layout, found.missing, found.unused) == ("taming", (), {})
    export_vqgan(found.model, tmp_path / "second.ckpt", "taming")
    states = [torch.load(tmp_path / f"{n}.ckpt")["state_dict"] for n in ("first", "second")]
    assert_same(*states)
    codes = first.encode(pictures())
    assert torch.equal(found.model.encode(pictures()), codes)
    torch.testing.assert_close(found.model.decode(codes), first.decode(codes))


def test_hugging_face_write_read_write_is_exact_and_without_a_decoder(tmp_path):
    first = model()
    export_vqgan(first, tmp_path / "first", "hugging-face")
    found = import_vqgan(tmp_path / "first", 32)
    assert (found.layout, found.missing) == ("hugging-face", ("decoder",))
    assert "gives codes, not pictures" in str(found)
    export_vqgan(found.model, tmp_path / "second", "hugging-face")
    assert_same(*(load_file(tmp_path / n / "model.safetensors") for n in ("first", "second")))
    configs = [json.loads((tmp_path / n / "config.json").read_text()) for n in ("first", "second")]
    assert configs[0] == configs[1]
    assert torch.equal(found.model.encode(pictures()), first.encode(pictures()))
    with pytest.raises(RuntimeError, match="no decoder"):
        found.model.decode(first.encode(pictures()))
    save_vqgan(found.model, tmp_path / "ours")
    again = import_vqgan(tmp_path / "ours")
    assert (again.layout, again.missing) == ("cm3-imagetok", ("decoder",))


@pytest.mark.parametrize("size", [(32, 32), (64, 32), (40, 72)])
def test_codes_are_those_of_transformers_chameleon(tmp_path, size):
    transformers = pytest.importorskip("transformers")
    export_vqgan(model(), tmp_path, "hugging-face")
    peer = transformers.models.chameleon.modeling_chameleon.ChameleonVQVAE.from_pretrained(tmp_path)
    codes = import_vqgan(tmp_path, 32).model.encode(pictures(*size))
    wanted = peer.encode(pictures(*size)).image_tokens
    assert torch.equal(codes.flatten(), wanted.flatten())


def janus(num_patches: int = 8):
    """Transformers' port of LlamaGen's model; its encoder compares vectors as they are, LlamaGen's

    compares unit vectors: the same with a codebook of unit vectors.
    """
    module = pytest.importorskip("transformers.models.janus.modeling_janus")
    config = module.JanusVQVAEConfig(
        embed_dim=8, num_embeddings=64, latent_channels=16, base_channels=32,
        channel_multiplier=[1, 2, 2], num_patches=num_patches,
    )  # fmt: skip
    peer = module.JanusVQVAE(config).eval()
    randomise(peer)
    weight = peer.quantize.embedding.weight.data
    weight /= weight.norm(dim=-1, keepdim=True)
    return peer


def assert_like_janus(found, peer) -> None:
    assert found.model.config.quantizer == "normalised"
    codes = found.model.encode(pictures())
    with torch.no_grad():
        assert torch.equal(codes.flatten(), peer.encode(pictures()).image_tokens.flatten())
        wanted = peer.decode(codes.flatten(1))
    torch.testing.assert_close(
        found.model.render(found.model.quantize.decode(codes)), wanted, atol=1e-5, rtol=0
    )


def test_codes_and_pictures_are_those_of_transformers_janus(tmp_path):
    peer = janus()
    tensors = {f"model.vqmodel.{name}": t.contiguous() for name, t in peer.state_dict().items()}
    tensors["lm_head.weight"] = torch.zeros(1)
    save_file(tensors, tmp_path / "model.safetensors")
    found = import_vqgan(tmp_path, 32)
    assert (found.layout, found.unused) == ("janus", {"lm_head.weight": 1})
    assert_like_janus(found, peer)


def llamagen_names(state: dict) -> dict:
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"(down|up)\.(\d)\.block", r"conv_blocks.\2.res", name)
        name = re.sub(r"(down|up)\.(\d)\.", r"conv_blocks.\2.", name)
        for number, part in enumerate(("block_1", "attn_1", "block_2")):
            name = name.replace(f"mid.{part}", f"mid.{number}")
        renamed[name] = tensor
    return renamed | {"quantize.codebook_used": torch.zeros(65536)}


@pytest.mark.parametrize("section", ["model", "ema", "state_dict"])
def test_llamagen_files_are_read_from_any_section(tmp_path, section):
    peer = janus()
    content = {section: llamagen_names(peer.state_dict()), "steps": 7, "args": {"lr": 0.1}}
    torch.save(content, tmp_path / "vq.pt")
    found = import_vqgan(tmp_path / "vq.pt", 32)
    assert (found.layout, found.unused) == ("llamagen", {"quantize.codebook_used": 1})
    assert_like_janus(found, peer)


def test_a_sharded_model_with_a_language_model_around_it_is_read(tmp_path):
    whole = model().state_dict()
    names = [name for name in whole if not name.startswith("decoder.")]
    parts = {
        "a.safetensors": {f"model.vqmodel.{n}": whole[n].contiguous() for n in names[::2]},
        "b.safetensors": {f"model.vqmodel.{n}": whole[n].bfloat16() for n in names[1::2]},
        "c.safetensors": {"model.layers.0.weight": torch.zeros(2)},
    }
    for file, tensors in parts.items():
        save_file(tensors, tmp_path / file)
    weight_map = {name: file for file, tensors in parts.items() for name in tensors}
    index = {"metadata": {}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "c.safetensors").unlink()  # not needed, so not opened
    found = import_vqgan(tmp_path, 32)
    assert (found.layout, found.unused) == ("hugging-face", {"model.layers": 1})
    assert_same(found.model.state_dict(), {
        n: whole[n] if n in names[::2] else whole[n].bfloat16().float() for n in names
    })  # fmt: skip


def test_a_lightning_checkpoints_discriminator_is_counted_not_read(tmp_path):
    tensors = model().state_dict() | {"loss.discriminator.main.0.weight": torch.zeros(1)}
    torch.save({"state_dict": tensors, "epoch": 3, "callbacks": {}}, tmp_path / "last.ckpt")
    found = import_vqgan(tmp_path / "last.ckpt", 32)
    assert found.unused == {"loss.discriminator": 1}
    assert "loss.discriminator (1)" in str(found)


class Dangerous:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_pickled_code_is_never_run_and_the_error_says_what_to_do(tmp_path, capsys):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": model().state_dict(), "hyper_parameters": Dangerous()}, path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: .*never run.*torch\.save"):
        import_vqgan(path)
    assert "must never run" not in capsys.readouterr().out


def test_broken_and_foreign_files_are_named(tmp_path):
    export_vqgan(model(), tmp_path / "good.ckpt", "taming")
    content = (tmp_path / "good.ckpt").read_bytes()
    state = model().state_dict()
    torch.save({k: v for k, v in state.items() if k != "encoder.norm_out.bias"}, tmp_path / "l.pt")
    torch.save(state | {"encoder.norm_out.bias": torch.zeros(3)}, tmp_path / "shape.pt")
    torch.save({"unet.weight": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save([1], tmp_path / "list.pt")
    cases = {
        "no.ckpt": (None, "no such file"),
        "no.safetensors": (None, "no such file"),
        "empty.ckpt": (b"", "cannot be read"),
        "half.ckpt": (content[: len(content) // 2], "cannot be read"),
        "text.safetensors": (b"hello, this is no checkpoint", "wanted safetensors"),
        "wrong.json": (b"{}", "wanted an index"),
        "l.pt": (None, "1 are missing, as encoder.norm_out.bias"),
        "shape.pt": (None, r"encoder.norm_out.bias: wanted shape \(64,\), got \(3,\)"),
        "other.pt": (None, "wanted a VQGAN"),
        "list.pt": (None, "wanted a dict"),
    }
    for name, (written, message) in cases.items():
        if written is not None:
            (tmp_path / name).write_bytes(written)
        with pytest.raises(CheckpointError, match=message) as caught:
            import_vqgan(tmp_path / name, 32)
        assert name in str(caught.value)


@pytest.mark.parametrize("layout", ["taming", "hugging-face"])
@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, layout, value):
    broken = model()
    with torch.no_grad():
        broken.quant_conv.weight[0, 0] = value
    path = tmp_path / ("vq.ckpt" if layout == "taming" else "vq")
    export_vqgan(broken, path, layout)
    with pytest.raises(CheckpointError, match=rf"{path}: quant_conv\.weight: wanted finite"):
        import_vqgan(path)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.ckpt"
    export_vqgan(model(), path, "taming")
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"could not write .*last\.ckpt"):
            export_vqgan(model(), path, "taming")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert path.read_bytes() == before
