"""What a CUDA device computes is what a CPU computes; skipped, and counted, where there is none."""

import json
import os
import subprocess
import sys

import pytest
import torch

from cm3_decoding import CodeBlock, SamplingConfig, generate
from cm3_imagetok import VQGAN, VQGANConfig
from cm3_model import (
    Decoder,
    DecoderConfig,
    compile_decoding,
    pack_weights,
    quantize_int8,
)
from cm3_model.few_rows import multiply
from cm3_model.packing import PackedLinear
from cm3_train import next_token_loss

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CHAMELEON = {
    "activation": "swiglu",
    "norm": "rms",
    "positions": "rotary",
    "qk_norm": True,
    "qk_norm_affine": True,
    "tie_embeddings": False,
}
KINDS = {
    "paper": {},
    "places": {"positions": "rotary-places", "image_ids": (100, 300)},
    "grouped": {"positions": "rotary", "num_kv_heads": 2},
    "chameleon": CHAMELEON,
}


def decoder(kind="chameleon", **changes):
    """A decoder whose weights are large enough that no part of it is a no-op."""
    shape = {"vocab_size": 300, "max_length": 512, "num_layers": 2, "width": 128, "num_heads": 4}
    model = Decoder(DecoderConfig(**(shape | KINDS[kind] | changes)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.1, generator=generator)
    return model.eval()


def ids(*shape, seed=0):
    return torch.randint(0, 300, shape, generator=torch.Generator().manual_seed(seed))


def draw(model, device, config, rows=3, length=40, lookahead=1):
    """Image codes after prompts of unequal length."""
    return torch.stack(
        generate(
            model,
            [ids(5 + row, seed=row) for row in range(rows)],
            unconditional=[ids(3)] * rows,
            constraint=CodeBlock(start=100, stop=300, length=length),
            seeds=range(rows),
            config=config,
            device=device,
            lookahead=lookahead,
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_cpu(kind):
    model, tokens = decoder(kind), ids(2, 200)
    with torch.no_grad():
        wanted = model(tokens)
        torch.testing.assert_close(model.cuda()(tokens.cuda()).cpu(), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [300, 384])
def test_packed_documents_by_flex_attention_learn_as_on_the_cpu(kind, length):
    model, tokens = decoder(kind), ids(3, length)
    ends = torch.tensor([[40, 41, 200], [128, 256, 300], [300, 300, 300]])
    documents = (torch.arange(length) >= ends[..., None]).sum(1)

    def step():
        device = model.token_embedding.weight.device
        hidden = model.hidden(tokens.to(device), documents.to(device))
        next_token_loss(hidden[:, :-1], tokens[:, 1:].to(device), model.head_weight).backward()
        gradients = {name: weight.grad.cpu() for name, weight in model.named_parameters()}
        model.zero_grad()
        return hidden.detach().cpu(), gradients

    hidden, gradients = step()
    model.cuda()
    found, moved = step()
    torch.testing.assert_close(found, hidden, rtol=2e-3, atol=2e-3)
    for name, wanted in gradients.items():
        assert (moved[name] - wanted).norm() <= 5e-3 * wanted.norm() + 1e-7, name


@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(guidance_scale=2.0, top_p=0.9),
        SamplingConfig(sampler="cd-k", guidance_scale=2.0),
        SamplingConfig(sampler="greedy"),
    ],
    ids=["top-p", "cd-k", "greedy"],
)
@pytest.mark.parametrize("kind", ["places", "chameleon"])
def test_drawn_codes_are_those_of_the_cpu(kind, config):
    model = decoder(kind)
    wanted = draw(model, "cpu", config)
    assert torch.equal(draw(model.cuda(), "cuda", config), wanted)


def test_the_compiled_step_draws_what_the_plain_one_draws():
    config = SamplingConfig(guidance_scale=2.0, top_p=0.9)
    plain, compiled = decoder().cuda(), decoder().cuda()
    compile_decoding(compiled, mode="reduce-overhead")
    # a second call with a cache of its own, then another batch size, then the first again
    for rows in (2, 2, 3, 2):
        wanted = draw(plain, "cuda", config, rows)
        assert torch.equal(draw(compiled, "cuda", config, rows), wanted), rows


def test_caches_of_a_compiled_step_have_the_same_memory():
    compiled = compile_decoding(decoder().cuda(), mode="reduce-overhead")
    config = SamplingConfig(guidance_scale=2.0)
    for rows in (3, 3, 4, 3):  # candidates of six to eight rows of the model, all eight there
        draw(compiled, "cuda", config, rows)
    assert len(compiled.compiled_step.pool._loans) <= 4


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("sampler", ["top-p", "cd-k"])
def test_a_look_ahead_draws_what_single_ids_draw(sampler, compiled):
    config = SamplingConfig(sampler=sampler, guidance_scale=2.0, top_p=0.9)
    model = decoder().cuda()
    wanted = draw(model, "cuda", config)
    if compiled:
        compile_decoding(model, mode="reduce-overhead")
    for _ in range(2):
        assert torch.equal(draw(model, "cuda", config, lookahead=4), wanted)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 6, 40])
@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_products_of_a_few_rows_are_those_of_float64(rows, kind):
    for out, width in ((384, 128), (200, 11008), (64, 4096)):
        x = torch.randn(rows, 1, width, device="cuda", dtype=torch.bfloat16)
        weight, scale = torch.randn(out, width, device="cuda"), None
        if kind == "int8":
            scale = torch.rand(out, device="cuda")
            weight = (40 * weight).clamp(-127, 127).to(torch.int8)
        else:
            weight = weight.bfloat16()
        with torch.no_grad():
            found = multiply(x, weight, scale)
        wanted = x.double() @ weight.double().T * (1 if scale is None else scale.double())
        assert (found - wanted).norm() < 3e-3 * wanted.norm()


@pytest.mark.parametrize("kind", ["packed", "int8"])
def test_a_compiled_step_of_a_few_rows_is_near_the_plain_one(kind):
    """The logits after a prompt, of bfloat16 steps with our kernel in the graph."""

    def steps(model):
        with torch.no_grad():
            cache = model.make_cache(2, 256)
            model.prefill(ids(2, 10).cuda(), torch.tensor([10, 10]), cache)
            return model.decode_one_token(ids(2).cuda(), cache).float()

    plain, ours = (decoder(width=256).cuda().bfloat16() for _ in range(2))
    if kind == "packed":
        for module in pack_weights(ours, 2).modules():
            if isinstance(module, PackedLinear):
                module.way = "few-rows"  # whichever was faster
    else:
        quantize_int8(ours)
    compile_decoding(ours, mode="reduce-overhead")
    wanted = steps(plain)
    for _ in range(2):
        assert (steps(ours) - wanted).norm() < 0.05 * wanted.norm()


def test_int8_and_bfloat16_stay_near():
    tokens = ids(2, 100).cuda()
    with torch.no_grad():
        wanted = decoder().cuda()(tokens)
        for other in (decoder().cuda().bfloat16(), quantize_int8(decoder()).cuda()):
            error = (other(tokens).float() - wanted).norm() / wanted.norm()
            assert error < 0.05


def test_logits_that_are_not_finite_are_refused_by_the_step_where_they_began():
    model = decoder().cuda()
    plain = model.decode_span
    calls = []

    def broken(*given):
        calls.append(1)
        logits = plain(*given)
        return logits * float("nan") if len(calls) == 7 else logits

    model.decode_span = broken
    with pytest.raises(FloatingPointError, match=r"step 7, rows \[0, 1, 2\]"):
        draw(model, "cuda", SamplingConfig())


def test_a_picture_has_the_codes_of_the_cpu_and_comes_back():
    config = VQGANConfig(
        image_size=64, patch_size=8, channels=32, channel_multipliers=(1, 1, 2, 2),
        num_res_blocks=1, norm_groups=8, z_channels=32, embed_dim=16, num_codes=64,
    )  # fmt: skip
    torch.manual_seed(0)
    tokenizer = VQGAN(config).eval()
    pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        codes = tokenizer.encode(pictures)
        decoded = tokenizer.decode(codes)
        tokenizer.cuda()
        found = tokenizer.encode(pictures.cuda()).cpu()
        assert (found == codes).float().mean() > 0.99  # a tie falls either way
        back = tokenizer.decode(codes.cuda()).cpu()
    assert (back - decoded).abs().max() < 0.02


def test_the_main_job_runs_and_draws_on_the_device(root, tmp_path):
    """The smoke recipe on the device: every stage, a kept run, and pictures by the other app."""
    run = [sys.executable, "apps/pretrain.py", "--config", "apps/configs/smoke.yaml"]
    run += ["--runs", str(tmp_path), "--device", "cuda"]
    done = subprocess.run(run, cwd=root, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "smoke" / "report.json").read_text())
    assert 0 < report["decoder"]["heldout_bits_per_code"] < 10
    draw_command = [sys.executable, "apps/generate.py", "--run", str(tmp_path / "smoke")]
    draw_command += ["--prompt", "red fox on white", "--device", "cuda", "--seed", "1"]
    draw_command += ["--candidates", "2", "--out", str(tmp_path / "out.png")]
    done = subprocess.run(draw_command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out.png").exists()
