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
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "apps"))

from figures import vectors_of
from pretrain import open_run
from report import sheet


def main() -> None:
    """Search, print and write."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("--run", type=Path, default=Path("runs/tiny"))
    command.add_argument("--picture", type=Path, help="PNG of ten queries and what they found")
    command.add_argument("--out", type=Path)
    given = command.parse_args()

    run = open_run(given.run)
    rows, groups = run.pairs.rows("variants"), run.group_numbers
    row_of = {int(key): row for row, key in enumerate(run.pairs.keys)}
    queries = {
        "text": run.encoder.encode_texts([run.pairs.captions[row] for row in rows]),
        "image": vectors_of(run.encoder, run.pixels_of(rows)),
    }
    bank_groups = groups[[row_of[int(key)] for key in run.bank.keys]]
    result: dict[str, object] = {
        "queries": len(rows),
        "bank": len(run.bank),
        "by_chance_at_1": float(np.mean([(bank_groups == groups[row]).mean() for row in rows])),
    }
    found = {}
    for kind, vectors in queries.items():
        _, keys = run.bank.search(vectors, 10)
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
            lines.append((run.pairs.captions[rows[i]], list(run.pixels_of(shown))))
        titles = ["query", "by text", "2", "3", "by image", "2", "3"]
        sheet(given.picture, lines, [titles])


if __name__ == "__main__":
    main()
