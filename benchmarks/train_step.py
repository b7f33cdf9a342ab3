"""One training step, forward, backward and AdamW: beside transformers' OPT, or on a GPU.

    uv run --group bench python benchmarks/train_step.py --out FILE
    uv run --group bench python benchmarks/train_step.py --vocabulary 64512 --out FILE

On a CPU: an OPT of 46M weights without biases and learnt norms, at sequence length 1024, the same
weights and ids in both, medians of alternating rounds; in float32, and in bfloat16 by autocast
where `--kinds` names it (a CPU without bfloat16 arithmetic emulates it, slowly). Both use the fused
AdamW. transformers computes its loss from whole logits, ours is what training runs,
`cm3_train.next_token_loss`.
`KIND_tokens_over_hf` is our tokens per second over the peer's. Memory: each side takes two steps in
a process of its own, and what counts is the peak above what the imports took; `KIND_peak_over_hf`
is ours over the peer's, so below 1 is better.

On a GPU: `cm3leon-350m` and `-760m` at sequence length 4096, bfloat16 by autocast, compiled: tokens
per second, and the share of the card's `--peak-tflops` that the model's arithmetic reaches (MFU),
counting six operations per weight and token, and attention as if nothing were masked.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timing import alternate, machine_facts, medians, report

from cm3_model import (
    PRESETS,
    Decoder,
    import_opt,
    operations_a_token,
)
from cm3_train import next_token_loss
from cm3_train.throughput import peak_memory, peak_operations

SHAPE = {
    "vocab_size": 16384, "hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8,
    "ffn_dim": 2048, "word_embed_proj_dim": 512, "enable_bias": False,
    "layer_norm_elementwise_affine": False, "dropout": 0.0, "attention_dropout": 0.0,
    "init_std": 0.02,
}  # fmt: skip


def precision(kind: str, device: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16, enabled=kind == "bf16")


def batch(length: int) -> torch.Tensor:
    ids = (1, length + 1)
    return torch.randint(6, 16384, ids, generator=torch.Generator().manual_seed(1))


def our_loss(model: Decoder, ids: torch.Tensor, chunk_size: int | None = None) -> torch.Tensor:
    hidden = model.hidden(ids[:, :-1])  # (B, T, D)
    return next_token_loss(hidden, ids[:, 1:], model.head_weight, chunk_size=chunk_size)


def their_loss(model: Any, ids: torch.Tensor) -> torch.Tensor:
    # Its own loss, by `labels=`, would leave out one position and copy the logits once more.
    logits = model(ids[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


def stepper(
    model: torch.nn.Module, loss: Callable[[Any, torch.Tensor], torch.Tensor], kind: str, ids: Any
) -> Callable[[], float]:
    """Make a function that takes one step and returns the loss before it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        with precision(kind, ids.device.type):
            value = loss(model, ids)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(value.detach())

    return step


def build(name: str, folder: str) -> tuple[torch.nn.Module, Callable[[Any, torch.Tensor], Any]]:
    """Load one side's model from a folder of weights; return it with its loss."""
    if name == "ours":
        return import_opt(folder).train(), our_loss
    import transformers

    model = transformers.OPTForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.train(), their_loss


def save_weights(folder: str, length: int, vocabulary: int) -> None:
    import transformers

    torch.manual_seed(0)
    shape = SHAPE | {"vocab_size": vocabulary}
    config = transformers.OPTConfig(**shape, max_position_embeddings=length)
    transformers.OPTForCausalLM(config).save_pretrained(folder)


def beside_transformers(
    kinds: list[str],
    rounds: int | None,
    minutes: float,
    length: int,
    vocabulary: int,
    threads: int,
) -> dict[str, object]:
    table: dict[str, object] = {}
    ids = batch(length)
    with tempfile.TemporaryDirectory() as folder:
        save_weights(folder, length, vocabulary)
        for kind in kinds:
            models = {name: build(name, folder) for name in ("ours", "hf")}
            steps = {name: stepper(*both, kind, ids) for name, both in models.items()}
            table["parameters"] = sum(weight.numel() for weight in models["ours"][0].parameters())
            first = {name: step() for name, step in steps.items()}  # warms up
            table[f"{kind}_loss_difference"] = abs(first["ours"] - first["hf"])
            budget = float("inf") if rounds else 60 * minutes / len(kinds)
            taken = alternate(steps, rounds or 20, warm_up=False, at_least=5, budget=budget)
            seconds = medians(taken)
            for name, value in seconds.items():
                table[f"{name}_{kind}_tokens_per_second"] = length / value
            table[f"{kind}_tokens_over_hf"] = seconds["hf"] / seconds["ours"]
            table[f"{kind}_rounds"] = len(taken["ours"])
            print(f"{kind}: {taken}", flush=True)
            del models, steps
            for name in ("ours", "hf"):
                command = [sys.executable, __file__, "--memory-of", name, "--kinds", kind]
                command += ["--weights", folder, "--length", str(length)]
                command += ["--threads", str(threads)]
                grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                table[f"{name}_{kind}_peak_bytes"] = int(grown.splitlines()[-1])
            table[f"{kind}_peak_over_hf"] = (
                table[f"ours_{kind}_peak_bytes"] / table[f"hf_{kind}_peak_bytes"]  # type: ignore[operator]
            )
    return table


def print_memory(name: str, kind: str, folder: str, length: int) -> None:
    """Print by how many bytes two steps raise the process's peak above its imports."""
    # Both sides start from the same imports; the second is AdamW's, which makes it late.
    for module in ("transformers", "torch._dynamo"):
        importlib.import_module(module)
    before = peak_memory(torch.device("cpu"))
    step = stepper(*build(name, folder), kind, batch(length))
    step()
    step()
    print(peak_memory(torch.device("cpu")) - before)


def on_a_gpu(rounds: int, length: int, size: int, peak_tflops: float | None) -> dict[str, object]:
    known = peak_operations(torch.cuda.get_device_name())
    peak = peak_tflops or (known / 1e12 if known else None)
    table: dict[str, object] = {"peak_tflops": peak}
    for short in ("350m", "760m"):
        config = PRESETS[f"cm3leon-{short}"]
        with torch.device("cuda"):
            model = Decoder(config, torch.Generator("cuda").manual_seed(0)).train()
            ids = torch.randint(config.vocab_size, (size, length + 1))
        for block in model.blocks:
            block.compile()
        step = stepper(model, partial(our_loss, chunk_size=4096), "bf16", ids)
        for _ in range(3):
            step()
        torch.cuda.reset_peak_memory_stats()
        # A step gives a float, so it waits for the device.
        taken = alternate({"step": step}, rounds, warm_up=False)
        tokens = size * length / medians(taken)["step"]
        table[f"tokens_per_second_{short}"] = tokens
        table[f"peak_bytes_{short}"] = torch.cuda.max_memory_allocated()
        if peak is not None:
            table[f"mfu_{short}"] = operations_a_token(config, length) * tokens / (peak * 1e12)
        del model, step
    return table


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, help="alternating rounds; default: see --minutes")
    parser.add_argument(
        "--minutes", type=float, default=6.0, help="for 5 to 20 rounds of all kinds"
    )
    parser.add_argument("--length", type=int, help="tokens per sequence; 1024, on a GPU 4096")
    parser.add_argument("--vocabulary", type=int, default=16384, help="on a CPU; the paper: 64512")
    parser.add_argument("--batch", type=int, default=4, help="on a GPU: sequences per step")
    parser.add_argument("--peak-tflops", type=float, help="on a GPU: of dense bfloat16, for MFU")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--note", default="", help="what else is worth knowing about this run")
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--memory-of", choices=("ours", "hf"), help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print_memory(options.memory_of, options.kinds[0], options.weights, options.length)
        return
    gpu = torch.cuda.is_available()
    length = options.length or (4096 if gpu else 1024)
    if gpu:
        table = on_a_gpu(options.rounds or 10, length, options.batch, options.peak_tflops)
    else:
        table = beside_transformers(
            options.kinds, options.rounds, options.minutes, length, options.vocabulary,
            options.threads,
        )  # fmt: skip
    config: dict[str, object] = {
        **machine_facts(options.threads),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "length": length,
        "torch": torch.__version__,
        "note": options.note,
    }
    if not gpu:
        import transformers

        config["transformers"] = transformers.__version__
        config["vocabulary"] = options.vocabulary
        config["bf16_arithmetic"] = torch.cpu._is_avx512_bf16_supported()
    table["config"] = config
    report(table, options.out)


if __name__ == "__main__":
    main()
