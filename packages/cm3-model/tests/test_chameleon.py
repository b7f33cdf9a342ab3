import importlib.util
import json
from pathlib import Path

import pytest
import torch

from cm3_model import CheckpointError, export_chameleon, import_chameleon

spec = importlib.util.spec_from_file_location("decoders", Path(__file__).with_name("conftest.py"))
decoders = importlib.util.module_from_spec(spec)
spec.loader.exec_module(decoders)
alike_within_shards, make_decoder = decoders.alike_within_shards, decoders.make_decoder
CHAMELEON, SHAPES = decoders.CHAMELEON, decoders.SHAPES

NO_PICTURES = {
    "vocabulary_map": {"<image>": 5},
    "vq_config": {
        "base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1,
        "latent_channels": 4, "embed_dim": 4, "num_embeddings": 4, "resolution": 8,
    },
}  # fmt: skip


@pytest.fixture(params=SHAPES)
def chameleon(request):
    return make_decoder(**SHAPES[request.param])


@pytest.fixture
def ids():
    return torch.randint(6, 60, (3, 24), generator=torch.Generator().manual_seed(2))


def peer(transformers, folder):
    return transformers.ChameleonForConditionalGeneration.from_pretrained(folder).eval()


@torch.no_grad()
def test_an_exported_chameleon_has_transformers_logits(chameleon, ids, transformers, tmp_path):
    export_chameleon(chameleon, tmp_path, config=NO_PICTURES)
    theirs = peer(transformers, tmp_path)
    torch.testing.assert_close(chameleon(ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)
    for length in (1, 2, 9):
        wanted = theirs(ids[:, :length]).logits
        torch.testing.assert_close(chameleon(ids[:, :length]), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("eps", [1e-6, 1e-3])
def test_the_norm_of_queries_and_keys_has_an_epsilon_of_its_own(eps, ids, transformers, tmp_path):
    model = make_decoder(**(CHAMELEON | {"norm_eps": eps}))
    for block in model.blocks:
        block.attention.qkv.weight.mul_(1e-2)  # so that it matters
    export_chameleon(model, tmp_path, config=NO_PICTURES)
    theirs = peer(transformers, tmp_path)(ids).logits
    for ours in (model, import_chameleon(tmp_path)):
        torch.testing.assert_close(ours(ids), theirs, rtol=1e-5, atol=1e-5)


def test_another_epsilon_is_no_chameleons(tmp_path):
    with pytest.raises(CheckpointError, match=r"wanted Chameleon's parts, got other .*qk_norm_eps"):
        export_chameleon(make_decoder(**(CHAMELEON | {"qk_norm_eps": 1e-6})), tmp_path)


@torch.no_grad()
def test_cached_steps_have_transformers_logits(chameleon, ids, transformers, tmp_path):
    export_chameleon(chameleon, tmp_path, config=NO_PICTURES)
    theirs = peer(transformers, tmp_path)
    cache = chameleon.make_cache(3, 24)
    ours = chameleon.prefill(ids[:, :9], torch.tensor([9, 9, 9]), cache)
    output = theirs(ids[:, :9], use_cache=True)
    for at in range(9, 24):
        torch.testing.assert_close(ours, output.logits[:, -1], rtol=1e-5, atol=1e-5)
        ours = chameleon.decode_one_token(ids[:, at], cache)
        output = theirs(ids[:, at : at + 1], past_key_values=output.past_key_values)


@torch.no_grad()
def test_left_padding_and_packing_have_transformers_logits(chameleon, ids, transformers, tmp_path):
    export_chameleon(chameleon, tmp_path, config=NO_PICTURES)
    theirs = peer(transformers, tmp_path)
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    wanted = theirs(ids, attention_mask=mask, position_ids=positions).logits
    got = chameleon(ids, documents=mask)
    torch.testing.assert_close(got[mask == 1], wanted[mask == 1], rtol=1e-5, atol=1e-5)
    packed = chameleon(ids[:1], documents=torch.tensor([[0] * 10 + [1] * 14]))
    alone = [theirs(ids[:1, :10]).logits, theirs(ids[:1, 10:]).logits]
    torch.testing.assert_close(packed, torch.cat(alone, 1), rtol=1e-5, atol=1e-5)


def test_a_huggingface_folder_comes_back_exactly(chameleon, ids, transformers, tmp_path):
    export_chameleon(chameleon, tmp_path / "ours", config=NO_PICTURES)
    # written by transformers: with its image tokenizer, in shards
    peer(transformers, tmp_path / "ours").save_pretrained(
        tmp_path / "theirs", max_shard_size="40KB"
    )
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        back = import_chameleon(folder)
        assert not back.training
        for name, weight in chameleon.state_dict().items():
            assert torch.equal(back.state_dict()[name], weight), name
        assert torch.equal(back(ids), chameleon(ids))


@torch.no_grad()
@pytest.mark.parametrize("shards", [1, 2])
def test_original_to_a_picture_to_transformers(chameleon, ids, transformers, tmp_path, shards):
    """An Anole-shaped checkpoint: import, draw, export, and transformers gives the same logits."""
    model = alike_within_shards(chameleon, shards)
    export_chameleon(model, tmp_path / "original", "original", num_shards=shards)
    names = sorted(path.name for path in (tmp_path / "original").iterdir())
    assert names[-2:] == ["consolidate_params.json", "params.json"] or names[-1] == "params.json"
    assert [name for name in names if name.endswith(".pth")] == (
        ["consolidated.pth"] if shards == 1 else ["consolidated.00.pth", "consolidated.01.pth"]
    )
    back = import_chameleon(tmp_path / "original")
    assert torch.equal(back(ids), model(ids))
    cache, picture = back.make_cache(1, 20), []
    logits = back.prefill(ids[:1, :4], torch.tensor([4]), cache)
    for _ in range(16):
        picture.append(logits[:, 10:18].argmax(-1) + 10)
        logits = back.decode_one_token(picture[-1], cache)
    drawn = torch.cat([ids[0, :4], *picture])[None]
    export_chameleon(back, tmp_path / "hf", config=NO_PICTURES)
    wanted = peer(transformers, tmp_path / "hf")(drawn).logits
    torch.testing.assert_close(back(drawn), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits, wanted[:, -1], rtol=1e-5, atol=1e-5)


def test_heads_of_their_own_do_not_fit_the_originals_shards(tmp_path):
    model = make_decoder(**CHAMELEON)
    with pytest.raises(CheckpointError, match="normalization.weight: wanted heads of a shard"):
        export_chameleon(model, tmp_path, "original")
    export_chameleon(model, tmp_path, "original", num_shards=4)
    assert torch.equal(import_chameleon(tmp_path).output.weight, model.output.weight)


def test_a_decoder_of_other_parts_is_no_chameleon(paper_decoder, tmp_path):
    with pytest.raises(CheckpointError, match="model: wanted Chameleon's parts, got other .*norm"):
        export_chameleon(paper_decoder, tmp_path)


@pytest.mark.parametrize("layout", ["huggingface", "original"])
def test_damage_is_named(tmp_path, layout):
    model = alike_within_shards(make_decoder(**CHAMELEON), 1)
    export_chameleon(model, tmp_path, layout)
    name = "model.safetensors" if layout == "huggingface" else "consolidated.pth"
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=f"{name}: cannot be read"):
        import_chameleon(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError):
        import_chameleon(tmp_path)


def test_every_key_that_does_not_fit_is_named(tmp_path):
    export_chameleon(make_decoder(**CHAMELEON), tmp_path, tensors={"surplus": torch.zeros(2)})
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"intermediate_size": 41}))
    with pytest.raises(CheckpointError) as error:
        import_chameleon(tmp_path)
    assert "extra surplus (2,)" in str(error.value)
    assert "misshapen blocks.1.mlp.down.weight: wanted (32, 41), got (32, 40)" in str(error.value)
    (tmp_path / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"missing model\.layers\.2\."):
        import_chameleon(tmp_path)


def test_a_folder_above_the_weights_is_told_where_they_are(tmp_path):
    model = alike_within_shards(make_decoder(**CHAMELEON), 1)
    with pytest.raises(CheckpointError, match="wanted config.json or .*, got neither$"):
        import_chameleon(tmp_path)
    for size in ("7b", "30b"):
        export_chameleon(model, tmp_path / "models" / size, "original")
    with pytest.raises(CheckpointError, match="there are models/30b, models/7b in it"):
        import_chameleon(tmp_path)
