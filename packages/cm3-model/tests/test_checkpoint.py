import hashlib
import json
import resource
import signal
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file, save_file

from cm3_model import (
    CheckpointError,
    Decoder,
    export_chameleon,
    import_chameleon,
    load_decoder,
    read_manifest,
    save_decoder,
)
from cm3_model.config import CHAMELEON_PARTS


@pytest.fixture
def saved(paper_decoder, tmp_path):
    save_decoder(paper_decoder, tmp_path / "decoder", {"vocabulary_sha256": "abc"})
    return tmp_path / "decoder"


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@contextmanager
def full_disk():
    """No file grows beyond 2,000 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_saved_decoder_comes_back_exactly(decoder, ids, tmp_path):
    save_decoder(decoder, tmp_path)
    loaded = load_decoder(tmp_path)
    assert loaded.config == decoder.config
    assert not loaded.training
    assert all(weight.requires_grad for weight in loaded.parameters())
    assert torch.equal(loaded(ids), decoder(ids))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_dtype_is_applied_on_load(saved):
    loaded = load_decoder(saved, dtype=torch.bfloat16)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}


def test_the_manifest_keeps_what_was_given(saved):
    assert read_manifest(saved)["extra"] == {"vocabulary_sha256": "abc"}


@pytest.mark.parametrize("where", [0, 100, -1])
def test_a_flipped_byte_is_caught(saved, where):
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        load_decoder(saved)


@pytest.mark.parametrize("share", [0, 0.5])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_truncated_file_is_named(saved, name, share):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=name):
        load_decoder(saved)


def test_a_config_of_too_many_brackets_is_named(saved):
    (saved / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read"):
        load_decoder(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: wanted .* got no such file"):
        load_decoder(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"component": "other"}, "json: wanted component 'cm3-model/decoder', got 'other'"),
        ({"component": "cm3-model.decoder"}, "got 'cm3-model.decoder'"),
        ({"interface_version": "2.0"}, r"wanted interface version 1\.x of .*, got 2\.0"),
        ({"interface_version": None}, r"wanted interface version 1\.x of .*, got None"),
        ({"config": {"depth": 3}}, r"config: unknown keys \['depth'\]"),
        ({"config": {"width": 24}}, "config: .*vocab_size"),
        ({"config": None}, "config: wanted an object"),
        ({"weights": None}, "damaged or replaced: wanted None"),
    ],
)
def test_another_config_is_refused(saved, changes, message):
    edit_config(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_decoder(saved)


def test_a_later_minor_version_is_read(saved):
    edit_config(saved, interface_version="1.7")
    load_decoder(saved)


def test_every_key_that_does_not_fit_is_named(saved):
    path = saved / "model.safetensors"
    weights = load_file(path)
    weights["surplus.weight"] = weights.pop("blocks.0.mlp.up.weight").clone()
    weights["blocks.1.mlp.up.weight"] = torch.zeros(3, 5)
    save_file(weights, path)
    content = path.read_bytes()
    fingerprint = {
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    edit_config(saved, weights=fingerprint)
    with pytest.raises(CheckpointError) as error:
        load_decoder(saved)
    assert "missing blocks.0.mlp.up.weight (96, 24)" in str(error.value)
    assert "extra surplus.weight (96, 24)" in str(error.value)
    assert "misshapen blocks.1.mlp.up.weight: wanted (96, 24), got (3, 5)" in str(error.value)


def test_a_full_disk_leaves_the_earlier_checkpoint(saved, paper_decoder, ids):
    before = paper_decoder(ids)
    with torch.no_grad():
        paper_decoder.token_embedding.weight.zero_()
    with full_disk(), pytest.raises(CheckpointError, match=r"not write .*model\.safetensors: "):
        save_decoder(paper_decoder, saved)
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert torch.equal(load_decoder(saved)(ids), before)


def test_a_full_disk_leaves_nothing_of_an_exported_chameleon(make, tmp_path):
    model = make(**CHAMELEON_PARTS)
    for layout, name in (("huggingface", "model.safetensors"), ("original", "consolidated.00.pth")):
        with full_disk(), pytest.raises(CheckpointError, match=f"could not write .*{name}: "):
            export_chameleon(model, tmp_path, layout, num_shards=3)
    assert not list(tmp_path.iterdir())


def test_large_weights_are_shards_with_the_index_that_others_read(paper_decoder, ids, tmp_path):
    save_decoder(paper_decoder, tmp_path, max_shard_bytes=10_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert sorted(set(index["weight_map"].values())) == [path.name for path in shards]
    for key, name in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / name)[key], paper_decoder.state_dict()[key])
    assert torch.equal(load_decoder(tmp_path)(ids), paper_decoder(ids))
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{shards[1].name}: damaged"):
        load_decoder(tmp_path)


def test_a_manifest_cannot_name_a_file_elsewhere(saved):
    edit_config(saved, weights={"file": "../model.safetensors", "bytes": 1, "sha256": ""})
    with pytest.raises(CheckpointError, match="weights: wanted names of weight files, got"):
        load_decoder(saved)


def tie(model, name, to):
    module, _, part = name.rpartition(".")
    setattr(model.get_submodule(module), part, model.get_parameter(to))


SAVERS = [
    save_decoder,
    export_chameleon,
    lambda model, folder: export_chameleon(model, folder, "original", num_shards=3),
]


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("output.weight", "token_embedding.weight"),
        ("blocks.1.mlp.up.weight", "blocks.0.mlp.up.weight"),
        ("blocks.1.attention_norm.weight", "norm.weight"),
    ],
)
def test_weights_that_the_config_does_not_tie_are_named(make, tmp_path, save, one, other):
    model = make(**CHAMELEON_PARTS)
    tie(model, one, other)
    with pytest.raises(CheckpointError, match="wanted weights of their own, got ") as error:
        save(model, tmp_path)
    assert one in str(error.value) and other in str(error.value)
    assert not list(tmp_path.iterdir())


def test_views_of_one_memory_that_do_not_overlap_are_saved(make, ids, tmp_path):
    model = make()
    flat = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    wanted = model(ids)
    torch.nn.utils.vector_to_parameters(flat, model.parameters())
    save_decoder(model, tmp_path)
    assert torch.equal(load_decoder(tmp_path)(ids), wanted)
    save_decoder(load_decoder(tmp_path), tmp_path)  # mapped weights, replaced by themselves
    assert torch.equal(load_decoder(tmp_path)(ids), wanted)


def wrapped(model):
    return torch.compile(model, backend="eager")


def wrapped_inside(model):
    for at, block in enumerate(model.blocks):
        model.blocks[at] = torch.compile(block, backend="eager")
    return model


@pytest.mark.parametrize("wrap", [wrapped, wrapped_inside, lambda m: wrapped(wrapped_inside(m))])
def test_a_compiled_decoder_is_saved_as_a_plain_one(make, ids, tmp_path, wrap):
    wanted = make(**CHAMELEON_PARTS)(ids)
    save_decoder(wrap(make(**CHAMELEON_PARTS)), tmp_path / "ours")
    export_chameleon(wrap(make(**CHAMELEON_PARTS)), tmp_path / "hf")
    assert torch.equal(load_decoder(tmp_path / "ours")(ids), wanted)
    assert torch.equal(import_chameleon(tmp_path / "hf")(ids), wanted)


def test_a_file_with_names_of_a_compiled_decoder_is_read(saved, paper_decoder, ids):
    path = saved / "model.safetensors"
    save_file({f"_orig_mod.{name}": value for name, value in load_file(path).items()}, path)
    content = path.read_bytes()
    found = {"file": path.name, "bytes": len(content)}
    edit_config(saved, weights=found | {"sha256": hashlib.sha256(content).hexdigest()})
    assert torch.equal(load_decoder(saved)(ids), paper_decoder(ids))


def test_what_is_no_decoder_with_weights_is_refused(paper_decoder, tmp_path):
    with torch.device("meta"):
        empty = Decoder(paper_decoder.config)
    for model, words in (
        (torch.nn.Linear(2, 2), "model: wanted a Decoder, got Linear"),
        (torch.nn.DataParallel(paper_decoder), "model: wanted a Decoder, got DataParallel"),
        (empty, "wanted numbers in token_embedding.weight, got no memory"),
    ):
        for save in (save_decoder, export_chameleon):
            with pytest.raises(CheckpointError, match=words):
                save(model, tmp_path)
    assert not list(tmp_path.iterdir())


def rewrite(folder, change):
    """Change the weights of a folder, and what its config says of them, if it does."""
    path = folder / "model.safetensors"
    save_file({name: change(name, value) for name, value in load_file(path).items()}, path)
    content = path.read_bytes()
    if "weights" in json.loads((folder / "config.json").read_text()):
        found = {"file": path.name, "bytes": len(content)}
        edit_config(folder, weights=found | {"sha256": hashlib.sha256(content).hexdigest()})


@pytest.mark.parametrize(
    ("save", "load"), [(save_decoder, load_decoder), (export_chameleon, import_chameleon)]
)
def test_weights_are_of_one_format_or_the_error_says_what_to_do(make, ids, tmp_path, save, load):
    def norms_stay(name, value):
        return value if "norm" in name else value.bfloat16()

    save(make(**CHAMELEON_PARTS), tmp_path)
    rewrite(tmp_path, norms_stay)
    with pytest.raises(CheckpointError, match="wanted one format, or dtype= .* got ") as error:
        load(tmp_path)
    for words in ("torch.bfloat16 in ", "torch.float32 in ", "norm", " more"):
        assert words in str(error.value)
    for dtype in (torch.float32, torch.bfloat16):
        model = load(tmp_path, dtype=dtype)
        assert {weight.dtype for weight in model.parameters()} == {dtype}
        assert bool(model(ids).isfinite().all())
    for odd in (torch.int8, torch.float8_e4m3fn):
        save(make(**CHAMELEON_PARTS), tmp_path)
        rewrite(tmp_path, lambda name, value, odd=odd: value.to(odd) if "mlp" in name else value)
        for dtype in (None, torch.float32):
            with pytest.raises(CheckpointError, match=f"wanted plain numbers, got {odd} in .*mlp"):
                load(tmp_path, dtype=dtype)


def test_a_decoder_saved_before_qk_norm_eps_had_a_name_is_the_same(make, ids, tmp_path):
    model = make(qk_norm=True, norm_eps=1e-3, qk_norm_eps=1e-3)
    save_decoder(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    del config["qk_norm_eps"]
    edit_config(tmp_path, config=config)
    assert torch.equal(load_decoder(tmp_path)(ids), model(ids))
