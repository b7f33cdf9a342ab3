"""The memory bank beside bare FAISS, and the encoder beside a plain open_clip loop.

    uv run --group bench python benchmarks/retrieval.py --out FILE --picture growth.png
    uv run --group bench python benchmarks/retrieval.py --rows 100000  # a quick look
    uv run --group bench python benchmarks/retrieval.py --ten-million --picture growth.png

The default is 1,000,000 vectors of 512 numbers; `--ten-million` adds 10^7 to the picture.
Vectors lie in clusters of unequal size around themes, with structure and noise inside, as embedded
documents do; queries are drawn the same way and are not in the bank. A second set has low rank and
a gap between texts and pictures, and is asked with both kinds of query (`gap_...`). Peers run in
the same process on the same index: FAISS's own `IndexRefineFlat` over the very index that our bank
holds, and `IndexFlatIP`. Speeds are medians of alternating rounds; `x_over_y` is x's speed over
y's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from timing import alternate, machine_facts, medians, report, speedup

from cm3_retrieval import IndexConfig, MemoryBank, plan_index
from cm3_retrieval.index.approximate import ApproximateIndex, add_rows, train_index
from cm3_retrieval.index.plan import TIERS
from cm3_retrieval.index.threads import FaissThreads
from cm3_retrieval.index.tuning import shared_keys

CLUSTERS, THEMES, INNER = 2000, 50, 64


def clustered(count: int, dim: int, seed: int) -> np.ndarray:
    """Draw (count, dim) float32 unit rows in clusters whose sizes follow a power law."""
    world = np.random.default_rng(7)
    mean = world.standard_normal(dim)
    themes = world.standard_normal((THEMES, dim))
    centres = themes[world.integers(THEMES, size=CLUSTERS)]
    centres = mean + centres + 0.9 * world.standard_normal((CLUSTERS, dim))
    basis = 0.6 * world.standard_normal((INNER, dim)) / np.sqrt(1 + np.arange(INNER))[:, None]
    share = 1 / np.arange(1, CLUSTERS + 1) ** 0.7
    rng = np.random.default_rng(seed)
    vectors = np.empty((count, dim), np.float32)
    for start in range(0, count, 16384):
        rows = min(16384, count - start)
        block = centres[rng.choice(CLUSTERS, rows, p=share / share.sum())].astype(np.float32)
        block += rng.standard_normal((rows, INNER), dtype=np.float32) @ basis.astype(np.float32)
        block += 0.5 * rng.standard_normal((rows, dim), dtype=np.float32)
        vectors[start : start + rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def gapped(count: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw documents, and their texts and pictures as queries: of low rank, with a modality gap.

    Returns:
        Three arrays (count, dim) float32 of unit rows. Text and picture of one document have a
        cosine near 0.3, as CLIP's have, and a document is the average of its two parts.
    """
    world = np.random.default_rng(11)
    basis = (world.standard_normal((INNER, dim)) / np.sqrt(1 + np.arange(INNER))[:, None]).astype(
        np.float32
    )
    sides = 2.4 * world.standard_normal((2, dim)).astype(np.float32)
    rng = np.random.default_rng(seed)
    shown = rng.standard_normal((count, INNER), dtype=np.float32)
    parts = []
    for side in sides:
        part = (shown + 0.7 * rng.standard_normal((count, INNER), dtype=np.float32)) @ basis
        part += side + 0.3 * rng.standard_normal((count, dim), dtype=np.float32)
        parts.append(part / np.linalg.norm(part, axis=1, keepdims=True))
    documents = parts[0] + parts[1]
    return documents / np.linalg.norm(documents, axis=1, keepdims=True), *parts


def gap_recall(options: argparse.Namespace) -> dict[str, float]:
    """Measure recall@10 of text and picture queries, as built and after `MemoryBank.tune`."""
    rows = min(options.rows, 200_000)
    documents = gapped(rows, options.dim, 1)[0]
    # As large a bank as the clustered one has this index; here fewer rows save time.
    factory = plan_index(1_000_000, options.dim).factory
    bank = MemoryBank.build(
        np.arange(rows), documents, {}, "none", IndexConfig(factory=factory, nprobe=32),
        threads=options.threads,
    )  # fmt: skip
    _, texts, pictures = gapped(512, options.dim, 2)
    asked = {"text": texts[:256], "image": pictures[:256]}
    fresh = {"text": texts[256:], "image": pictures[256:]}
    flat = faiss.IndexFlatIP(options.dim)
    flat.add(documents)
    true = {kind: flat.search(queries, 10)[1] for kind, queries in fresh.items()}

    def measure(name: str) -> dict[str, float]:
        found = {}
        for kind, queries in fresh.items():
            keys = bank.search(queries, 10, threads=options.threads)[1]
            found[f"gap_{kind}_recall_{name}"] = float(shared_keys(keys, true[kind]).mean())
        found[f"gap_query_seconds_{name}"] = seconds_a_query(bank, fresh["text"][:64])
        return found

    table = {"gap_rows": rows, **measure("nprobe32")}
    bank._index.set_config(plan_index(rows, options.dim, IndexConfig(factory=factory, nprobe=128)))
    table |= measure("nprobe128")
    start = time.perf_counter()
    tuned = bank.tune(asked, threads=options.threads)
    table |= {"gap_tuning_seconds": time.perf_counter() - start}
    table |= {f"gap_tuned_{name}": tuned[name] for name in ("nprobe", "rescore")}
    return table | measure("tuned")


def measure_build(rows: int, dim: int, threads: int, factory: str) -> dict[str, float]:
    """Build in a process of its own; the peak counts the vectors, not the imports."""
    command = [sys.executable, __file__, "--build-only", "--rows", str(rows), "--dim", str(dim)]
    command += ["--threads", str(threads), "--factory", factory]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(answer.splitlines()[-1])


def build_only(options: argparse.Namespace) -> dict[str, float]:
    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if options.rows > 2_000_000:
        return build_in_blocks(options)
    vectors = clustered(options.rows, options.dim, 1)
    start = time.perf_counter()
    bank = MemoryBank.build(
        np.arange(options.rows),
        vectors,
        {},
        "none",
        IndexConfig(factory=options.factory),
        threads=options.threads,
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    query = clustered(64, options.dim, 2)
    return {
        "seconds": seconds,
        "peak_over_raw": (peak - imports) / vectors.nbytes,
        "peak_with_imports_over_raw": peak / vectors.nbytes,
        "query_seconds": seconds_a_query(bank, query),
    }


def build_in_blocks(options: argparse.Namespace) -> dict[str, float]:
    """Train on a sample and add blocks: the vectors as a whole would not fit in memory."""
    plan = plan_index(options.rows, options.dim, IndexConfig(factory=options.factory, rescore=0))
    sample = clustered(plan.train_rows or 65_536, options.dim, 1)
    start = time.perf_counter()
    index = train_index(sample, plan, threads=options.threads)
    seconds = time.perf_counter() - start
    del sample
    for block in range(0, options.rows, 250_000):
        vectors = clustered(min(250_000, options.rows - block), options.dim, 1000 + block)
        start = time.perf_counter()
        with FaissThreads(options.threads):
            add_rows(index, vectors)
        seconds += time.perf_counter() - start
    bank = ApproximateIndex(index, np.arange(options.rows), None, plan)
    query = clustered(64, options.dim, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    raw = 4 * options.rows * options.dim
    return {
        "seconds": seconds,
        "peak_with_imports_over_raw": peak / raw,
        "query_seconds": seconds_a_query(bank, query),
        "whole_vectors_kept": 0.0,
    }


def seconds_a_query(bank: MemoryBank | ApproximateIndex, queries: np.ndarray) -> float:
    """Search for the queries one by one."""
    calls = {"search": lambda: [bank.search(query[None], 10) for query in queries]}
    return medians(alternate(calls, 5))["search"] / len(queries)


def search_speed(options: argparse.Namespace) -> dict[str, float]:
    """Time our search beside FAISS's on the same index; measure recall against exact search."""
    vectors = clustered(options.rows, options.dim, 1)
    bank = MemoryBank.build(
        np.arange(options.rows), vectors, {}, "none", threads=options.threads,
        index=IndexConfig(factory=options.factory),
    )  # fmt: skip
    ours = bank._index
    flat = faiss.IndexFlatIP(options.dim)
    flat.add(vectors)
    refined: faiss.Index = flat
    if ours.vectors is not None:
        refined = faiss.IndexRefine(ours.index, flat)
        refined.k_factor = bank.config.rescore
    elif bank.config.factory != "Flat":
        refined = ours.index
    threads, table = options.threads, {"index": bank.config.factory}
    faiss.omp_set_num_threads(threads)
    for batch in (1, 1024):
        queries = clustered(1024, options.dim, 2)
        loops = 200 if batch == 1 else 1
        if bank.config.factory == "Flat" and batch == 1:
            loops = 5

        parts = [queries[place : place + batch] for place in range(loops)]

        def turn(search: Callable, parts: list[np.ndarray] = parts) -> None:
            for part in parts:
                search(part)

        calls = {
            "ours": lambda turn=turn: turn(lambda q: bank.search(q, 10, threads=threads)),
            "faiss": lambda turn=turn: turn(lambda q: refined.search(q, 10)),
        }
        taken = alternate(calls, options.rounds)
        table[f"search_batch{batch}_over_faiss"] = speedup(taken, "ours", "faiss")
        table[f"batch{batch}_queries_per_second"] = loops * batch / medians(taken)["ours"]
        few = queries[: min(batch, 64)]  # exact search takes long; its speed per query is the same
        exact = {"exact": lambda few=few: flat.search(few, 10)}
        per_second = len(few) / medians(alternate(exact, options.rounds))["exact"]
        table[f"exact_batch{batch}_queries_per_second"] = per_second
        table[f"queries_over_exact_batch{batch}"] = (
            table[f"batch{batch}_queries_per_second"] / per_second
        )
    queries = queries[:256]
    found = bank.search(queries, 10, threads=threads)[1]
    true = flat.search(queries, 10)[1]
    table["recall_at_10"] = float(
        np.mean(
            [len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), true.tolist(), strict=True)]
        )
    )
    table["queries_over_exact"] = min(
        table["queries_over_exact_batch1"], table["queries_over_exact_batch1024"]
    )
    return table


def embedding_speed(options: argparse.Namespace) -> dict[str, object]:
    """Time texts and pictures through `ClipEncoder` and through a loop written by hand."""
    import open_clip
    import torch
    from PIL import Image
    from torch.nn import functional as F

    from cm3_retrieval import ClipEncoder

    torch.set_num_threads(options.threads)
    encoder = ClipEncoder("ViT-B-32", batch_size=16)
    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32")
    model.load_state_dict(encoder.model.state_dict())
    model = model.eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (32, 256, 256, 3), dtype=np.uint8)
    pictures = [Image.fromarray(array) for array in arrays]
    texts = [f"a picture of thing number {row}" for row in range(32)]

    def by_hand() -> list[torch.Tensor]:
        rows = []
        with torch.inference_mode():
            for start in range(0, 32, 16):
                batch = torch.stack([transform(p) for p in pictures[start : start + 16]])
                rows.append(F.normalize(model.encode_image(batch), dim=-1))
                ids = tokenizer(texts[start : start + 16])
                rows.append(F.normalize(model.encode_text(ids), dim=-1))
        return rows

    def ours() -> None:
        encoder.encode_images(pictures)
        encoder.encode_texts(texts)

    difference = np.abs(by_hand()[0].numpy() - encoder.encode_images(pictures[:16])).max()
    taken = alternate({"ours": ours, "by_hand": by_hand}, options.rounds)
    return {
        "embed_over_open_clip": speedup(taken, "ours", "by_hand"),
        "embed_largest_difference": float(difference),
        "embed_pairs_per_second": 32 / medians(taken)["ours"],
        "open_clip": open_clip.__version__,
        "torch": torch.__version__,
    }


def growth(options: argparse.Namespace, last: dict[str, float]) -> dict[str, dict[str, float]]:
    """Measure building and querying at 10^4, 10^5 and so on up to `--rows`."""
    sizes = [size for size in (10**4, 10**5, 10**6) if size < options.rows]
    table = {str(size): measure_build(size, options.dim, options.threads, "auto") for size in sizes}
    table[str(options.rows)] = last
    if options.ten_million:
        table[str(10**7)] = measure_build(10**7, options.dim, options.threads, "auto")
    return table


def draw(table: dict[str, dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    sizes = [int(size) for size in table]
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, key, scale, label in (
        (axes[0], "seconds", 1, "build, seconds"),
        (axes[1], "query_seconds", 1e3, "one query, milliseconds"),
    ):
        axis.loglog(sizes, [scale * row[key] for row in table.values()], "o-")
        axis.set(xlabel="documents", ylabel=label)
        axis.grid(alpha=0.3)
        for tier in TIERS:
            if min(sizes) < tier.up_to_rows < max(sizes):
                axis.axvline(tier.up_to_rows, color="grey", linestyle=":", label="exact | IVF-PQ")
                axis.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds, at least 5")
    parser.add_argument("--factory", default="auto", help="FAISS factory string")
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--picture", type=Path, help="PNG of the growth to write")
    parser.add_argument(
        "--ten-million", action="store_true", help="10^7 in the growth, without whole vectors"
    )
    parser.add_argument("--note", default="", help="what else ran on the machine")
    parser.add_argument("--build-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build_only:
        print(json.dumps(build_only(options)))
        return
    build = measure_build(options.rows, options.dim, options.threads, options.factory)
    table: dict[str, object] = {
        "build_seconds": build["seconds"],
        "build_peak_over_raw": build["peak_over_raw"],
        "build_peak_with_imports_over_raw": build["peak_with_imports_over_raw"],
    }
    print(table, flush=True)
    table |= search_speed(options)
    print(table, flush=True)
    table |= gap_recall(options)
    print(table, flush=True)
    table |= embedding_speed(options)
    table["growth"] = growth(options, build)
    table["config"] = {
        "rows": options.rows,
        "dim": options.dim,
        "threads": options.threads,
        "rounds": options.rounds,
        **machine_facts(options.threads),
        "faiss": faiss.__version__,
        "note": options.note,
    }
    if options.picture:
        draw(table["growth"], options.picture)  # pyright: ignore
    report(table, options.out)


if __name__ == "__main__":
    main()
