"""Does a retrieved document pay for the tokens that it costs? Two decoders, the same time each.

    python benchmarks/retrieval_at_equal_time.py --run runs/tiny --seconds 120 --out FILE

Trains the run's decoder from scratch twice on the run's own shards, once with no document and once
with the recipe's share of retrieved ones, each for the same CPU seconds, and compares bits per code
on held-out concepts. The rate falls to 0 over the time, so each is judged at its own end.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "apps"))

import torch
from decoder_training import new_decoder, training_batches
from figures import bits_per_code
from pipeline import Run
from pretrain import open_run

from cm3_model import Decoder
from cm3_train import build_optimizer, next_token_loss


def train(run: Run, shares: tuple[float, ...], seconds: float) -> tuple[Decoder, int, int]:
    """A decoder trained for ``seconds`` of CPU time; also its steps and tokens."""
    recipe = replace(run.recipe.decoder, context_shares=shares)
    model = new_decoder(recipe, run.vocabulary, run.codebook, run.recipe.seed)
    optimizer = build_optimizer(model, recipe.optim)
    peaks = [group["lr"] for group in optimizer.param_groups]
    start, steps, tokens = time.process_time(), 0, 0
    rows = run.pairs.rows("train")
    batches = training_batches(
        recipe,
        run.vocabulary,
        run.sequences,
        run.training_neighbours,
        run.pairs.keys[rows],
        run.group_numbers[rows],
        run.recipe.seed,
    )
    for batch in batches:
        done = (time.process_time() - start) / seconds
        if done >= 1:
            break
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * min(1.0, (steps + 1) / 30) * (1 - done)
        with torch.autocast("cpu", torch.bfloat16, enabled=run.precision == "bf16-mixed"):
            loss = next_token_loss(model.hidden(batch["input_ids"]), batch["labels"], model.head)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps, tokens = steps + 1, tokens + batch["input_ids"].numel()
    return model.eval(), steps, tokens


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/tiny"), help="a finished run")
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU seconds a decoder")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    run = open_run(options.run)
    with_documents = run.recipe.decoder.context_shares
    table = {}
    for name, shares in (("no_documents", (1.0,)), ("documents", with_documents)):
        run.model, steps, tokens = train(run, shares, options.seconds)
        test = run.pairs.rows("test")
        table[name] = {
            "steps": steps,
            "tokens": tokens,
            "heldout_bits_without": bits_per_code(run, test, None),
            "heldout_bits_with_true": bits_per_code(run, test, run.true_documents),
        }
        print(name, {key: round(value, 3) for key, value in table[name].items()})
    table["bits_saved_by_documents"] = (
        table["no_documents"]["heldout_bits_without"] - table["documents"]["heldout_bits_with_true"]
    )
    table["config"] = {
        "cpu_seconds": options.seconds,
        "context_shares": list(with_documents),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
    print("bits saved by documents:", round(table["bits_saved_by_documents"], 3))
    if options.out:
        options.out.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
