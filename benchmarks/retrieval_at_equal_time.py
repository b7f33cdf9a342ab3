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
import time
from dataclasses import replace
from pathlib import Path

import torch

from cm3_model import Decoder
from cm3_train import build_optimizer, next_token_loss
from cm3leon.device import precision_on
from cm3leon.evaluation.bits import bits_per_code
from cm3leon.evaluation.subject import Subject, open_subject
from cm3leon.recipe import Recipe
from cm3leon.recipe_file import read_recipe
from cm3leon.training.decoder import new_decoder
from cm3leon.training.sequences import training_batches, training_sequences


def train(
    run: Subject, whole: Recipe, shares: tuple[float, ...], seconds: float
) -> tuple[Decoder, int, int]:
    """A decoder trained for `seconds` of CPU time; also its steps and tokens."""
    recipe, parts = replace(whole.decoder, context_shares=shares), run.parts
    precision = precision_on(parts.device, whole.precision)
    model = new_decoder(recipe, parts.tokenizers, whole.seed)
    optimizer = build_optimizer(model, recipe.optim)
    peaks = [group["lr"] for group in optimizer.param_groups]
    pairs = run.pictures.pairs
    start, steps, tokens = time.process_time(), 0, 0
    documents = parts.memory.documents
    sequences = training_sequences(recipe, parts.tokenizers, documents, run.neighbours, whole.seed)
    keys, pad_id = pairs.keys[pairs.rows("train")], parts.tokenizers.vocabulary.pad_id
    batches = training_batches(recipe, sequences, keys, whole.seed, pad_id=pad_id)
    for batch in batches:
        done = (time.process_time() - start) / seconds
        if done >= 1:
            break
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * min(1.0, (steps + 1) / 30) * (1 - done)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = next_token_loss(
                model.hidden(batch["input_ids"]), batch["labels"], model.head_weight
            )
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
    run, recipe = open_subject(options.run, "cpu"), read_recipe(options.run)
    pairs, with_documents = run.pictures.pairs, recipe.decoder.context_shares
    table = {}
    for name, shares in (("no_documents", (1.0,)), ("documents", with_documents)):
        model, steps, tokens = train(run, recipe, shares, options.seconds)
        parts, test = replace(run.parts, model=model), pairs.rows("test")
        table[name] = {
            "steps": steps,
            "tokens": tokens,
            "heldout_bits_without": bits_per_code(parts, pairs, test, None),
            "heldout_bits_with_true": bits_per_code(parts, pairs, test, run.context),
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
