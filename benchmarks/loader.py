"""The loader: tokens a second and core, beside litdata's token streaming; the cost of many keys.

    uv run --group bench python benchmarks/loader.py --out FILE

Ours does the whole way of a training batch in one process with one thread: a key of the shuffled
order, retrieved documents from the neighbour table, ids and codes from memory-mapped shards with
their checksums, the layout of up to three pairs of 1,024 codes, CM3, and rows of 4,096 positions
(`packed`) or padded to the longest (`padded`). litdata streams rows of 4,097 ids that were
concatenated and cut beforehand, shuffled, uncompressed; it stacks them and shifts. Positions that
hold tokens count; filling does not.

Many keys: a set of `--files` shards with `--keys` keys in all (small pictures) is opened, its order
made, its fingerprint taken. `*_300m_*` are these figures times 300 million over the number of keys.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import alternate, machine_facts, medians, report, speedup

from cm3_retrieval import NeighbourTable, training_context
from cm3_texttok import DocumentLayout, Vocabulary
from cm3_train import (
    CM3Config,
    PackedLoader,
    Sample,
    SampleOrder,
    SequenceBuilder,
    TokenLoader,
    TokenShards,
    seal_shards,
    write_shard,
    write_shards,
)
from cm3_train.process_memory import peak_bytes

CODES, LENGTH, BATCH = 1024, 4096, 8
SEED = 0


def pairs(count: int, codes: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    keys = rng.choice(2**62, count, replace=False)
    for key in keys.tolist():
        yield {
            "key": key,
            "text_ids": rng.integers(100, 50000, rng.integers(10, 60)).astype(np.uint16),
            "codes": rng.integers(0, 8192, codes).astype(np.uint16),
        }


def random_table(keys: np.ndarray, rng: np.random.Generator) -> NeighbourTable:
    shape = (len(keys), 2)
    found = {kind: keys[rng.integers(len(keys), size=shape)] for kind in ("image", "text")}
    scores = {kind: np.full(shape, 0.5, np.float32) for kind in found}
    return NeighbourTable(keys, found, scores, {})


def builder(shards: TokenShards, table: NeighbourTable) -> Any:
    words = Vocabulary(
        text_size=56320, num_codes=8192, pad_id=0, eos_id=1, break_id=2, infill_id=3,
        mask_ids=tuple(range(4, 20)),
    )  # fmt: skip
    layout = DocumentLayout(words)

    def of(count: int) -> SequenceBuilder:
        return SequenceBuilder(
            shards,
            layout.training,
            lambda key, epoch: training_context(table, key, n=count, seed=SEED, epoch=epoch),
            CM3Config(),
            eos_id=words.eos_id,
            break_id=words.break_id,
            infill_id=words.infill_id,
            mask_ids=words.mask_ids,
            max_length=LENGTH,
            seed=SEED,
        )

    builders = [of(count) for count in range(3)]

    def build(key: int, epoch: int) -> Sample:
        return builders[(key + epoch) % 3](key, epoch)

    return build


def tokens(batches: Iterator[dict[str, torch.Tensor]], count: int) -> int:
    return sum(int((batch["input_ids"] != 0).sum()) for batch in islice(batches, count))


def write_litdata(shards: TokenShards, build: Any, folder: Path) -> None:
    """Write the same sequences, one behind the other, cut into rows."""
    from litdata import TokensLoader
    from litdata.streaming.writer import BinaryWriter

    ids = np.concatenate([build(key, 0).ids for key in shards.keys.tolist()]).astype(np.int64)
    rows = ids[: len(ids) // (LENGTH + 1) * (LENGTH + 1)]
    writer = BinaryWriter(str(folder), chunk_bytes="64MB", item_loader=TokensLoader(LENGTH + 1))
    for place, row in enumerate(rows.reshape(-1, LENGTH + 1)):
        writer.add_item(place, torch.from_numpy(row))
    writer.done()
    writer.merge(1)


def stream_litdata(folder: Path) -> Iterator[dict[str, torch.Tensor]]:
    from litdata import StreamingDataset, TokensLoader

    loader = TokensLoader(LENGTH + 1)
    data = StreamingDataset(str(folder), item_loader=loader, shuffle=True, seed=SEED)
    while True:
        for rows in torch.utils.data.DataLoader(data, batch_size=BATCH, drop_last=True):
            yield {"input_ids": rows[:, :-1], "labels": rows[:, 1:]}


def throughput(work: Path, rows: int, rounds: int, batches: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    write_shards(
        pairs(rows, CODES, rng), work / "shards", codes_per_image=CODES, vocabulary_sha256="v"
    )
    shards = TokenShards(work / "shards")
    build = builder(shards, random_table(shards.keys, rng))
    write_litdata(shards, build, work / "litdata")
    order = SampleOrder(shards.keys, SEED, BATCH)
    streams = {
        "packed": iter(PackedLoader(build, order, LENGTH, pad_id=0)),
        "packed_32k": iter(
            PackedLoader(build, SampleOrder(shards.keys, SEED, 1), 8 * LENGTH, pad_id=0)
        ),
        "padded": iter(TokenLoader(build, order, pad_id=0)),
        "litdata": stream_litdata(work / "litdata"),
    }
    counted = {name: [0] for name in streams}

    def call(name: str) -> None:
        counted[name].append(tokens(streams[name], batches))

    taken = alternate({name: lambda name=name: call(name) for name in streams}, rounds)
    seconds = medians(taken)
    found: dict[str, object] = {
        f"tokens_per_second_core_{name}": float(np.median(counted[name][-rounds:])) / seconds[name]
        for name in streams
    }
    found["tokens_per_second_core"] = found["tokens_per_second_core_packed"]
    per_token = {n: [s / np.median(counted[n][-rounds:]) for s in taken[n]] for n in streams}
    found["over_litdata"] = speedup(per_token, "packed", "litdata")
    for name in ("packed", "packed_32k"):
        shares = [float(next(streams[name])["padding"]) for _ in range(batches)]
        found[f"padding_{name}"] = float(np.mean(shares))
    return found


def many_keys(work: Path, files: int, keys: int) -> dict[str, object]:
    """Write a set of many files, and open it in a process of its own."""
    rng = np.random.default_rng(1)
    each = keys // files
    numbers = rng.permutation(each * files).reshape(files, each)
    codes, text = np.zeros(4, np.uint16), np.zeros(4, np.uint16)
    entries = []
    for number, of_file in enumerate(numbers.tolist()):
        rows = [{"key": 7919 * key, "text_ids": text, "codes": codes} for key in of_file]
        entries.append(write_shard(rows, work, number, 4))
    start = time.perf_counter()
    seal_shards(work, entries, codes_per_image=4, vocabulary_sha256="v")
    sealing = time.perf_counter() - start
    out = subprocess.run(
        [sys.executable, __file__, "--open", str(work)], check=True, capture_output=True, text=True
    )
    found = json.loads(out.stdout.splitlines()[-1])
    scale = 300_000_000 / (each * files)
    found |= {
        "files": files,
        "keys": each * files,
        "seal_seconds": sealing,
        "open_300m_seconds": found["open_seconds"] * scale,
        "fingerprint_300m_seconds": found["fingerprint_seconds"] * scale,
        "keys_300m_gb": 300_000_000 * found["resident_bytes_per_key"] / 1e9,
        "index_300m_gb": 300_000_000 * found["index_bytes_per_key"] / 1e9,
    }
    return found


def open_set(folder: Path) -> dict[str, float]:
    """Measure what opening costs."""

    def resident() -> int:  # without the pages of mapped files
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("RssAnon")).split()[1])

    before = resident()
    start = time.perf_counter()
    shards = TokenShards(folder)
    opened = time.perf_counter()
    order = SampleOrder(shards.keys, SEED, BATCH)
    made = time.perf_counter()
    order.fingerprint()
    fingerprint = time.perf_counter()
    order.fingerprint()
    again = time.perf_counter()
    key = int(order.batch(0)[0][0])
    shards.codes(key)
    first = time.perf_counter()
    index = next(folder.glob("index-*.arrow")).stat().st_size
    return {
        "open_seconds": opened - start,
        "keys_seconds": made - opened,
        "fingerprint_seconds": fingerprint - made,
        "fingerprint_again_seconds": again - fingerprint,
        "first_sample_seconds": first - again,
        "resident_bytes_per_key": (resident() - before) / len(shards),
        "index_bytes_per_key": index / len(shards),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=8000, help="pictures of 1,024 codes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=40, help="batches of a round")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--keys", type=int, default=3_000_000)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.open:
        print(json.dumps(open_set(options.open)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        figures = throughput(work, options.rows, options.rounds, options.batches)
        figures |= many_keys(work / "many", options.files, options.keys)
    import litdata

    versions = {"torch": torch.__version__, "numpy": np.__version__, "litdata": litdata.__version__}
    peak = peak_bytes() / 2**30
    config = f"{options.rows} pairs of {CODES} codes, 0 to 2 retrieved, rows of {LENGTH}"
    facts = {**machine_facts(1), **versions, "config": config, "peak_gb": peak}
    report({**figures, **facts}, options.out)


if __name__ == "__main__":
    main()
