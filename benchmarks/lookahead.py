"""Reading guesses of the next codes together with the last one: passes and time saved, same ids.

    python apps/pretrain.py
    python benchmarks/lookahead.py --run runs/tiny --out FILE

Draws captions that training never saw, one batch of `--candidates` for each, with every lookahead
of `--lookaheads`; medians of alternating rounds. `passes` are the model's for 100 codes of a row,
`times_as_fast` compares with a lookahead of 1, and `same_ids` is the share of codes that are those
drawn with it. A decoder of random weights would say nothing: its guesses are as good as any.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import alternate, machine_facts, medians, report

from cm3_decoding import Row, generate_rows
from cm3_model import Decoder
from cm3leon.drawing.draw import drawing
from cm3leon.evaluation.subject import open_subject


def draw(model: Decoder, batches: list[list[Row]], lookahead: int) -> list[torch.Tensor]:
    """Draw each batch by itself; return the ids of all rows."""
    return [ids for rows in batches for ids in generate_rows(model, rows, lookahead=lookahead)]


def passes_of(model: Decoder, call: partial[list[torch.Tensor]]) -> int:
    """Count the decode passes of a call."""
    count = 0
    plain = model.decode_several

    def counted(*given: object) -> torch.Tensor:
        nonlocal count
        count += 1
        return plain(*given)  # type: ignore[arg-type]

    model.decode_several = counted  # type: ignore[method-assign]
    call()
    del model.decode_several
    return count


def main() -> None:
    """Draw, time, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--lookaheads", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--note", default="", help="what else is worth knowing about this run")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run = open_subject(options.run)
    chosen = run.one_a_concept("test")[: options.prompts]
    captions = [run.pictures.pairs.captions[row] for row in chosen]
    model = run.parts.model
    assert isinstance(model, Decoder)
    table: dict[str, object] = {}
    for candidates in options.candidates:
        seeds = np.arange(len(captions) * candidates).reshape(-1, candidates)
        rows = drawing(run.parts, captions, seeds=seeds).rows
        batches = [list(rows[at : at + candidates]) for at in range(0, len(rows), candidates)]
        calls = {ahead: partial(draw, model, batches, ahead) for ahead in options.lookaheads}
        wanted = torch.stack(draw(model, batches, 1))
        taken = alternate({str(ahead): call for ahead, call in calls.items()}, options.rounds)
        seconds = medians(taken)
        for ahead, call in calls.items():
            name = f"candidates{candidates}_lookahead{ahead}"
            same = torch.stack(call()) == wanted
            table[f"{name}_passes"] = (
                100 * passes_of(model, call) / (len(batches) * wanted.shape[1])
            )
            table[f"{name}_times_as_fast"] = seconds["1"] / seconds[str(ahead)]
            table[f"{name}_same_ids"] = float(same.float().mean())
            table[f"{name}_seconds_a_picture"] = seconds[str(ahead)] / len(rows)
    table["config"] = {
        **machine_facts(options.threads),
        "run": options.run.name,
        "prompts": len(captions),
        "codes": int(wanted.shape[1]),
        "torch": torch.__version__,
        "note": options.note,
    }
    report(table, options.out)


if __name__ == "__main__":
    main()
