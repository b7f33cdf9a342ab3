"""Drawing pictures with guidance beside transformers' ``generate``: tokens a second.

    pip install transformers
    python benchmarks/decode.py --out FILE
    python benchmarks/decode.py --preset cm3leon-7b     # on a GPU: one picture, seconds and floor

Without ``--preset``: a Chameleon of about 50M random weights, the same in both, draws image codes
with classifier-free guidance (scale 3) at batch 1 and 8, in alternating rounds, medians.
``cfg_batchN_over_hf`` is our tokens a second over the peer's; ``cfg_cost_batch1`` is our seconds
with guidance over those without. With ``--preset``: random weights, one picture of 1024 codes at
batch 1; the floor is the weights' bytes over the memory's bandwidth, a step.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from cm3_decoding import CodeBlock, SamplingConfig, generate
from cm3_model import PRESETS, Decoder, DecoderConfig, export_chameleon, quantize_int8

SMALL = DecoderConfig(
    vocab_size=12288, max_length=2048, num_layers=11, width=512, num_heads=8, mlp_width=1408,
    activation="swiglu", norm="rms", positions="rotary", qk_norm=True, qk_norm_affine=True,
    tie_embeddings=False, init_std=0.02,
)  # fmt: skip
PROMPT = list(range(100, 132))
WITHOUT = [100, 101, 131]
GUIDED = SamplingConfig(guidance_scale=3.0)


def alternate(rounds: int, calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each call over alternating rounds, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def ours(
    model: Decoder, batch: int, tokens: int, config: SamplingConfig, device: str = "cpu"
) -> list[torch.Tensor]:
    codes = min(8192, model.config.vocab_size - 4)
    return generate(
        model,
        [torch.tensor(PROMPT)] * batch,
        unconditional=[torch.tensor(WITHOUT)] * batch,
        constraint=CodeBlock(start=4, stop=4 + codes, length=tokens),
        seeds=range(batch),
        config=config,
        device=device,
    )


def beside_transformers(rounds: int, tokens: int, batches: list[int]) -> dict[str, float]:
    """Both models with the same weights; every figure of one batch size from the same rounds."""
    import transformers

    model = Decoder(SMALL, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for weight in model.parameters():  # the residual projections start as 0
            if weight.ndim == 2:
                weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(weight.numel()))
    with tempfile.TemporaryDirectory() as folder:
        tiny = {"base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1}
        export_chameleon(
            model, folder, config={"vocabulary_map": {"<image>": 5}, "vq_config": tiny}
        )
        peer = transformers.ChameleonForConditionalGeneration.from_pretrained(folder).eval()
    ids = torch.tensor([PROMPT])
    difference = float((model(ids) - peer(ids).logits).abs().max())
    table = {
        "parameters": float(sum(weight.numel() for weight in model.parameters())),
        "largest_logit_difference": difference,
    }

    def theirs(batch: int) -> torch.Tensor:
        return peer.generate(
            ids.repeat(batch, 1), attention_mask=torch.ones(batch, len(PROMPT)).long(),
            negative_prompt_ids=torch.tensor([WITHOUT]).repeat(batch, 1), guidance_scale=3.0,
            do_sample=True, top_k=0, min_new_tokens=tokens, max_new_tokens=tokens,
            pad_token_id=1, eos_token_id=2,
        )  # fmt: skip

    for batch in batches:
        calls: dict[str, Callable[[], object]] = {
            "ours": lambda batch=batch: ours(model, batch, tokens, GUIDED),
            "hf": lambda batch=batch: theirs(batch),
        }
        if batch == 1:
            calls["plain"] = lambda: ours(model, 1, tokens, SamplingConfig())
        seconds = alternate(rounds, calls)
        for name, value in seconds.items():
            table[f"{name}_batch{batch}_tokens_per_second"] = batch * tokens / value
        table[f"cfg_batch{batch}_over_hf"] = seconds["hf"] / seconds["ours"]
        if batch == 1:
            table["cfg_cost_batch1"] = seconds["ours"] / seconds["plain"]
        print(f"batch {batch}: {seconds}", flush=True)
    return table


def bandwidth(device: str) -> float:
    """Bytes a second that a large copy reads and writes."""
    block = torch.empty(2**28 if device == "cuda" else 2**26, device=device)
    other = torch.empty_like(block)

    def copy() -> None:
        other.copy_(block)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * block.nbytes / alternate(5, {"copy": copy})["copy"]


def picture(preset: str, rounds: int, tokens: int) -> dict[str, float]:
    """Seconds of one picture with guidance at batch 1, in bfloat16 and int8, and the floors."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = PRESETS[preset]
    if device == "cpu" and config.width > 1024:
        raise SystemExit(f"--preset {preset}: wanted a GPU, found none; try cm3leon-350m")
    if device == "cpu":
        print("no GPU: on the CPU, where bfloat16 and int8 may be emulated")
    with torch.device(device):
        generator = torch.Generator(device).manual_seed(0)
        model = Decoder(config, generator).bfloat16().eval()
    speed = bandwidth(device)
    table = {"bandwidth_bytes_per_second": speed}
    short = {"cm3leon-7b": "7b"}.get(preset, preset)
    for kind in ("bf16", "int8"):
        if kind == "int8":
            quantize_int8(model)
        weights = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
        seconds = alternate(rounds, {"draw": lambda: ours(model, 1, tokens, GUIDED, device)})
        table[f"seconds_{short}_{kind}"] = seconds["draw"]
        table[f"floor_seconds_{kind}"] = weights / speed * tokens
    return table


@torch.no_grad()
def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds, at least 5")
    parser.add_argument("--tokens", type=int, default=1024, help="image codes a picture")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--preset", choices=PRESETS, help="one picture with this decoder instead")
    parser.add_argument("--note", default="", help="what else is worth knowing about this run")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    if options.rounds < 5:
        parser.error(f"--rounds: wanted at least 5, got {options.rounds}")
    torch.set_num_threads(options.threads)
    table: dict[str, object] = {}
    if options.preset:
        table |= picture(options.preset, options.rounds, options.tokens)
    else:
        table |= beside_transformers(options.rounds, options.tokens, options.batches)
    table["config"] = {
        "machine": f"{platform.machine()}, {options.threads} threads",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "preset": options.preset or "Chameleon of 50M",
        "tokens": options.tokens,
        "rounds": options.rounds,
        "torch": torch.__version__,
        "note": options.note,
    }
    if not options.preset:
        import transformers

        table["config"] |= {"transformers": transformers.__version__}  # type: ignore[operator]
    for name, value in table.items():
        print(f"{name:32} {value:.5g}" if isinstance(value, float) else f"{name:32} {value}")
    if options.out:
        options.out.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
