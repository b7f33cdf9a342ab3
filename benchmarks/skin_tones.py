"""How well the small CLIP's memory finds "same concept, other skin tone" on the embedded data.

    python apps/pretrain.py
    python benchmarks/skin_tones.py --run runs/tiny --picture found.png --out FILE

Queries are the held-out variants, by caption and by picture; the bank holds the training split, in
which each of them has siblings (pictures of its group). ``recall_at_k`` is the share of queries
with a sibling among the k best; ``by_chance_at_1`` that of a random document.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from cm3leon.evaluation.subject import open_subject
from cm3leon.sheets import write_sheet


def main() -> None:
    """Search, print and write."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("--run", type=Path, default=Path("runs/tiny"))
    command.add_argument("--picture", type=Path, help="PNG of ten queries and what they found")
    command.add_argument("--out", type=Path)
    given = command.parse_args()

    run = open_subject(given.run)
    pairs, bank = run.pictures.pairs, run.parts.memory.bank
    rows, groups = pairs.rows("variants"), pairs.group_numbers
    row_of = {int(key): row for row, key in enumerate(pairs.keys)}
    queries = {
        "text": run.parts.encoder.encode_texts([pairs.captions[row] for row in rows]),
        "image": run.neighbours.image_vectors[rows],
    }
    bank_groups = groups[[row_of[int(key)] for key in bank.keys]]
    result: dict[str, object] = {
        "queries": len(rows),
        "bank": len(bank),
        "by_chance_at_1": float(np.mean([(bank_groups == groups[row]).mean() for row in rows])),
    }
    found = {}
    for kind, vectors in queries.items():
        _, keys = bank.search(vectors, 10)
        found[kind] = np.vectorize(row_of.__getitem__)(keys)  # (Q, 10) rows
        hit = groups[found[kind]] == groups[rows][:, None]
        result[kind] = {f"recall_at_{k}": float(hit[:, :k].any(1).mean()) for k in (1, 5, 10)}
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")
    if given.picture:
        some = np.random.default_rng(0).choice(len(rows), 10, replace=False)
        lines = []
        for i in some:
            shown = np.concatenate([[rows[i]], found["text"][i, :3], found["image"][i, :3]])
            lines.append((pairs.captions[rows[i]], list(run.pictures.pixels(shown))))
        titles = ["query", "by text", "2", "3", "by image", "2", "3"]
        write_sheet(given.picture, lines, [titles])


if __name__ == "__main__":
    main()
