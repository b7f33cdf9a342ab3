import importlib.util
import json
from pathlib import Path

import pytest
import torch

from cm3_model import export_chameleon

spec = importlib.util.spec_from_file_location("decoders", Path(__file__).with_name("conftest.py"))
decoders = importlib.util.module_from_spec(spec)
spec.loader.exec_module(decoders)
alike_within_shards, make_decoder = decoders.alike_within_shards, decoders.make_decoder
CHAMELEON, SHAPES = decoders.CHAMELEON, decoders.SHAPES


def test_the_originals_layout_is_llamas(tmp_path):
    model = alike_within_shards(make_decoder(**CHAMELEON), 1)
    export_chameleon(model, tmp_path, "original")
    saved = torch.load(tmp_path / "consolidated.pth", weights_only=True)
    assert saved["layers.1.attention.wq.weight"].shape == (32, 32)
    assert saved["layers.0.attention.q_normalization.weight"].shape == (8,)
    qkv = model.blocks[1].attention.qkv.weight
    assert torch.equal(saved["layers.1.attention.wk.weight"], qkv[32:64])
    assert torch.equal(saved["layers.1.feed_forward.w3.weight"], model.blocks[1].mlp.up.weight[40:])


def as_the_original_loads(folder, rank):
    """Config and shapes by the rules of Meta's `chameleon.inference`, loader and transformer."""
    params = json.loads((folder / "params.json").read_text())
    both = json.loads((folder / "consolidate_params.json").read_text())
    params = {**params, **params["model"], **both}
    args = {"ffn_dim_multiplier": None, "multiple_of": 256, "n_kv_heads": None}
    args |= params
    dim, shards = args["dim"], args["model_parallel_size"]
    head, kv_heads = dim // args["n_heads"], args["n_kv_heads"] or args["n_heads"]
    hidden = int(2 * 4 * dim / 3)
    if args["ffn_dim_multiplier"] is not None:
        hidden = int(args["ffn_dim_multiplier"] * hidden)
    hidden = args["multiple_of"] * ((hidden + args["multiple_of"] - 1) // args["multiple_of"])
    shapes = {
        "tok_embeddings.weight": (args["vocab_size"], dim // shards),
        "norm.weight": (dim,),
        "output.weight": (args["vocab_size"] // shards, dim),
    }
    for layer in range(args["n_layers"]):
        inner = {
            "attention.wq.weight": (dim // shards, dim),
            "attention.wk.weight": (kv_heads * head // shards, dim),
            "attention.wv.weight": (kv_heads * head // shards, dim),
            "attention.wo.weight": (dim, dim // shards),
            "feed_forward.w1.weight": (hidden // shards, dim),
            "feed_forward.w3.weight": (hidden // shards, dim),
            "feed_forward.w2.weight": (dim, hidden // shards),
            "attention_norm.weight": (dim,),
            "ffn_norm.weight": (dim,),
        }
        if args.get("qk_normalization", False):
            for letter in "qk":
                for part in ("weight", "bias"):
                    inner[f"attention.{letter}_normalization.{part}"] = (head,)
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in inner.items()}
    name = "consolidated.pth" if shards == 1 else f"consolidated.{rank:02}.pth"
    saved = torch.load(folder / name, weights_only=True)
    freqs = saved.pop("rope.freqs")  # the one name that its loader wants beside the model's own
    wanted = 1.0 / args["rope_theta"] ** (torch.arange(0, head, 2).float() / head)
    torch.testing.assert_close(freqs, wanted)
    assert {name: tuple(value.shape) for name, value in saved.items()} == shapes
    return args


@pytest.mark.parametrize("change", [{}, {"mlp_width": 256}, {"mlp_width": 88}, {"mlp_width": 84}])
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_metas_own_loader_finds_what_it_wants(tmp_path, change, shards):
    for at, shape in enumerate(SHAPES.values()):
        if shape.get("num_kv_heads", 4) % shards:
            continue
        model = alike_within_shards(make_decoder(**(shape | change)), shards)
        export_chameleon(model, tmp_path / str(at), "original", num_shards=shards)
        for rank in range(shards):
            args = as_the_original_loads(tmp_path / str(at), rank)
            assert args["swin_norm"] == (model.config.norm_placement == "after")
            assert (args["norm_eps"], args["model_parallel_size"]) == (1e-5, shards)
