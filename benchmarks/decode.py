"""Drawing pictures with guidance: beside transformers' `generate`, and the memory's floor.

    uv run --group bench python benchmarks/decode.py --out FILE
    uv run --group bench python benchmarks/decode.py --preset cm3leon-7b --out FILE
    uv run --group bench python benchmarks/decode.py --preset cm3leon-7b \\
        --sweep 1 2 4 8 16 32 64 --picture PNG

Without `--preset`: a Chameleon of about 50M random weights, the same in both, draws image codes
with classifier-free guidance (scale 3) at batch 1 and 8: medians of alternating rounds, `--rounds`
of them, or 2 to 5 as fit in `--minutes`. Ours gets `pack_weights`. transformers draws in the way
that was fastest for 64 codes just before: by its own `generate`, which runs the model once for each
stream, with a dynamic or a static cache; by a plain loop over its model with both streams in one
batch ("batched"); or, with `--compiled`, by that loop with a static cache and the model compiled,
as gpt-fast does, which takes minutes to compile.

`cfg_batchN_over_hf` is our tokens per second over the peer's, `cfg_batchN_over_generate` that over
its `generate`; `cfg_cost_batch1` is our seconds with guidance over those without. `bf16` is ours in
bfloat16, where the CPU has arithmetic for it, and `bf16_batchN_same_codes` the share of codes
before the first that differs from float32's.

With `--preset`, for a GPU: random weights, one picture of 1024 codes at batch 1 with guidance, in
bfloat16 and int8. The floor is the bytes of weights that a step reads, over the memory's bandwidth
as measured by a copy, times the steps. The step is compiled ("reduce-overhead", one CUDA graph)
unless `--eager`. `--sweep` gives pictures per second over batch sizes, as in the paper's figure 11.
Without a GPU a small decoder takes the preset's place, in float32 where the CPU has no bfloat16
arithmetic, and the table says so.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timing import alternate, machine_facts, medians, report

from cm3_decoding import CodeBlock, SamplingConfig, generate
from cm3_model import (
    PRESETS,
    Decoder,
    DecoderConfig,
    compile_decoding,
    export_chameleon,
    pack_weights,
    quantize_int8,
)
from cm3_model.packing import PackedLinear

SMALL = DecoderConfig(
    vocab_size=12288, max_length=2048, num_layers=11, width=512, num_heads=8, mlp_width=1408,
    activation="swiglu", norm="rms", positions="rotary", qk_norm=True, qk_norm_affine=True,
    tie_embeddings=False, init_std=0.02,
)  # fmt: skip
PROMPT = list(range(100, 132))
WITHOUT = [100, 101, 131]
GUIDED = SamplingConfig(guidance_scale=3.0)


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


def beside_transformers(
    rounds: int | None, minutes: float, tokens: int, batches: list[int], compiled: bool
) -> dict[str, object]:
    """Time both models on the same weights; all figures of a batch size share their rounds."""
    import transformers

    transformers.logging.set_verbosity_error()
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
    table: dict[str, object] = {
        "parameters": float(sum(weight.numel() for weight in model.parameters())),
        "largest_logit_difference": float((model(ids) - peer(ids).logits).abs().max()),
    }

    def generate_of_theirs(batch: int, tokens: int, cache: str) -> torch.Tensor:
        return peer.generate(
            ids.repeat(batch, 1), attention_mask=torch.ones(batch, len(PROMPT)).long(),
            negative_prompt_ids=torch.tensor([WITHOUT]).repeat(batch, 1), guidance_scale=3.0,
            do_sample=True, top_k=0, min_new_tokens=tokens, max_new_tokens=tokens,
            pad_token_id=1, eos_token_id=2, cache_implementation=cache,
        )  # fmt: skip

    ways: dict[str, Callable[[int, int], torch.Tensor]] = {
        "dynamic": partial(generate_of_theirs, cache="dynamic"),
        "static": partial(generate_of_theirs, cache="static"),
        "batched": partial(in_one_batch, peer, peer.forward),
    }
    if compiled:
        forward = torch.compile(peer.forward, dynamic=False)
        ways["compiled"] = partial(in_one_batch, peer, forward, room=tokens)
    half = torch.cpu._is_avx512_bf16_supported()
    for batch in batches:
        few = min(tokens, 64)
        warm = alternate({way: partial(call, batch, few) for way, call in ways.items()}, 2)
        best = min(ways, key=lambda way: min(warm[way]))
        own = min(("dynamic", "static"), key=lambda way: min(warm[way]))
        mine = pack_weights(copy.deepcopy(model), 2 * batch)  # two streams a picture
        calls: dict[str, Callable[[], object]] = {
            "ours": partial(ours, mine, batch, tokens, GUIDED),
            "hf": partial(ways[best], batch, tokens),
        }
        if best != own:
            calls["generate"] = partial(ways[own], batch, tokens)
        if half:
            short = pack_weights(copy.deepcopy(model).bfloat16(), 2 * batch)
            calls["bf16"] = partial(ours, short, batch, tokens, GUIDED)
            drawn = [calls[name]() for name in ("ours", "bf16")]
            table[f"bf16_batch{batch}_same_codes"] = same_codes(*drawn)
        if batch == 1:
            plain = pack_weights(copy.deepcopy(model), 1)
            calls["plain"] = partial(ours, plain, 1, tokens, SamplingConfig())
        # The larger the batch, the longer a round.
        share = 60 * minutes * (batch + 3) / sum(other + 3 for other in batches)
        budget = float("inf") if rounds else share
        taken = alternate(calls, rounds or 5, warm_up=False, at_least=2, budget=budget)
        seconds = medians(taken)
        for name, value in seconds.items():
            table[f"{name}_batch{batch}_tokens_per_second"] = batch * tokens / value
        table[f"cfg_batch{batch}_over_hf"] = seconds["hf"] / seconds["ours"]
        table[f"cfg_batch{batch}_over_generate"] = (
            seconds["generate" if best != own else "hf"] / seconds["ours"]
        )
        if half:
            table[f"bf16_batch{batch}_over_hf"] = seconds["hf"] / seconds["bf16"]
        if batch == 1:
            table["cfg_cost_batch1"] = seconds["ours"] / seconds["plain"]
        table[f"rounds_batch{batch}"] = len(taken["ours"])
        table[f"hf_way_batch{batch}"] = best
        layers = {m.way for m in mine.modules() if isinstance(m, PackedLinear)}
        table[f"products_batch{batch}"] = ", ".join(sorted(layers))
        print(f"batch {batch}: {taken}", flush=True)
    return table


def in_one_batch(
    peer: Any,
    forward: Callable[..., Any],
    batch: int,
    tokens: int,
    *,
    room: int | None = None,
) -> torch.Tensor:
    """Draw codes (B, tokens) by a model of transformers, both streams in one batch.

    With `room` the cache has that many codes' from the start, so that no shape ever changes.
    """
    from transformers import DynamicCache, StaticCache

    length = len(PROMPT) + (room or tokens)
    cache = StaticCache(peer.config, max_cache_len=length) if room else DynamicCache()
    gap = len(PROMPT) - len(WITHOUT)
    rows = torch.tensor([PROMPT] * batch + [[1] * gap + WITHOUT] * batch)  # padded on the left
    mask = torch.ones(len(rows), length, dtype=torch.long)
    mask[batch:, :gap] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    start, drawn = 0, []
    for end in range(len(PROMPT), len(PROMPT) + tokens):
        logits = forward(
            input_ids=rows,
            attention_mask=mask if room else mask[:, :end],
            position_ids=places[:, start:end],
            past_key_values=cache,
            cache_position=torch.arange(start, end),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        with_text, without = logits.chunk(2)
        scores = without + GUIDED.guidance_scale * (with_text - without)
        drawn.append(scores.softmax(-1).multinomial(1))
        rows, start = drawn[-1].repeat(2, 1), end
    return torch.cat(drawn, 1)


def same_codes(ones: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """Return the share of codes before the first that differs, over pictures."""
    alike = [(a == b).long().cumprod(0).sum() / len(a) for a, b in zip(ones, others, strict=True)]
    return float(torch.stack(alike).mean())


def bandwidth(device: str) -> float:
    """Return the bytes per second that a large copy reads and writes."""
    block = torch.empty(2**28 if device == "cuda" else 2**26, device=device)
    other = torch.empty_like(block)

    def copy() -> None:
        other.copy_(block)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * block.nbytes / min(alternate({"copy": copy}, 5)["copy"])


def bytes_a_step(model: Decoder) -> int:
    """Return the bytes of the weights that a step reads whole: all but rows that are looked up."""
    read = [*model.blocks.parameters(), *model.blocks.buffers()]
    output = model.token_embedding if model.output is None else model.output
    return sum(weight.nbytes for weight in [*read, output.weight])


def pictures(
    preset: str, rounds: int, tokens: int, batches: list[int], compiled: bool
) -> dict[str, object]:
    """Time pictures with guidance in two kinds of weights, beside their floors."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config, dtype, name = PRESETS[preset], torch.bfloat16, preset.removeprefix("cm3leon-")
    kinds: dict[str, Callable[[Decoder], Decoder]] = {
        "bf16": lambda model: model,
        "int8": quantize_int8,
    }
    if device == "cpu":
        config, name = SMALL, "small"
        if not torch.cpu._is_avx512_bf16_supported():
            dtype = torch.float32
            kinds = {"fp32": kinds["bf16"], "int8": kinds["int8"]}
        print(f"no GPU: not {preset}, but a decoder of 50M on the CPU, {dtype}", flush=True)
    speed = bandwidth(device)
    table: dict[str, object] = {"bandwidth_bytes_per_second": speed}
    for kind, change in kinds.items():
        with torch.device(device):
            generator = torch.Generator(device).manual_seed(0)
            model = change(Decoder(config, generator).to(dtype).eval())
        if compiled and device == "cuda":
            compile_decoding(model, mode="reduce-overhead")
        floor = bytes_a_step(model) / speed * tokens
        for batch in batches:
            try:
                if device == "cuda":
                    pack_weights(model, 2 * batch)  # two streams a picture; leaves int8 alone
                draw = {"draw": partial(ours, model, batch, tokens, GUIDED, device)}
                # The first call compiles, for this batch and this length of the cache.
                seconds = medians(alternate(draw, rounds))["draw"]
            except torch.OutOfMemoryError:
                print(f"{kind}, batch {batch}: out of memory", flush=True)
                break
            table[f"pictures_per_second_{kind}_batch{batch}"] = batch / seconds
            if batch == 1:
                table[f"seconds_{name}_{kind}"] = seconds
                table[f"floor_seconds_{kind}"] = floor
                table[f"seconds_over_floor_{kind}"] = seconds / floor
            print(f"{kind}, batch {batch}: {seconds:.3f} s, floor {floor:.3f} s", flush=True)
        del model
    return table


def draw_sweep(table: dict[str, object], path: Path) -> None:
    """Plot pictures per second over the batch size, a line for each kind of weights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.add_subplot()
    start = "pictures_per_second_"
    names = [name.removeprefix(start) for name in table if name.startswith(start)]
    for kind in dict.fromkeys(name.split("_batch")[0] for name in names):
        sizes = [int(name.split("_batch")[1]) for name in names if name.startswith(kind + "_")]
        speeds = [table[f"{start}{kind}_batch{size}"] for size in sizes]
        axes.plot(sizes, speeds, marker="o", label=kind)
        axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set(xscale="log", xlabel="batch", ylabel="pictures per second, with guidance")
    axes.set_xticks([], minor=True)
    axes.legend()
    figure.savefig(path, dpi=150)


@torch.no_grad()
def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help="alternating rounds; default: see --minutes")
    parser.add_argument("--minutes", type=float, default=9.0, help="for the rounds; at least 2")
    parser.add_argument("--tokens", type=int, default=1024, help="image codes per picture")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compiled", action="store_true", help="also time the peer compiled")
    parser.add_argument("--preset", choices=PRESETS, help="this decoder alone, on a GPU")
    parser.add_argument("--sweep", type=int, nargs="+", default=[1], help="--preset: batch sizes")
    parser.add_argument("--picture", type=Path, help="--preset: PNG of the sweep to write")
    parser.add_argument("--eager", action="store_true", help="--preset: do not compile")
    parser.add_argument("--note", default="", help="what else is worth knowing about this run")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table: dict[str, object] = {}
    if options.preset:
        table |= pictures(
            options.preset, options.rounds or 3, options.tokens, options.sweep, not options.eager
        )
        if options.picture:
            draw_sweep(table, options.picture)
    else:
        table |= beside_transformers(
            options.rounds, options.minutes, options.tokens, options.batches, options.compiled
        )
    config: dict[str, object] = {
        **machine_facts(options.threads),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "preset": options.preset or "Chameleon of 50M",
        "tokens": options.tokens,
        "torch": torch.__version__,
        "note": options.note,
    }
    if options.preset and not torch.cuda.is_available():
        config["preset"] = f"a decoder of 50M in place of {options.preset}, for want of a GPU"
    if not options.preset:
        import transformers

        config["transformers"] = transformers.__version__
    table["config"] = config
    report(table, options.out)


if __name__ == "__main__":
    main()
