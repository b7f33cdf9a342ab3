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
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from retrieval_growth import draw, growth, measure_build, seconds_a_query
from retrieval_vectors import clustered, gapped
from timing import alternate, machine_facts, medians, report, speedup

from cm3_retrieval import IndexConfig, MemoryBank, plan_index
from cm3_retrieval.index.tuning import shared_keys


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
    options = parser.parse_args()
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
