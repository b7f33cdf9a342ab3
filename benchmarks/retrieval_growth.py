"""How building a memory bank, and a query, grow with its size; each size in a process of its own.

`benchmarks/retrieval.py` calls it. As a script it builds one bank and prints its figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from retrieval_vectors import clustered
from timing import alternate, medians

from cm3_retrieval import IndexConfig, MemoryBank, plan_index
from cm3_retrieval.index.approximate import ApproximateIndex, add_rows, train_index
from cm3_retrieval.index.plan import TIERS
from cm3_retrieval.index.threads import FaissThreads
from cm3_train.process_memory import peak_bytes


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


def measure_build(rows: int, dim: int, threads: int, factory: str) -> dict[str, float]:
    """Build in a process of its own; the peak counts the vectors, not the imports."""
    command = [sys.executable, __file__, "--rows", str(rows), "--dim", str(dim)]
    command += ["--threads", str(threads), "--factory", factory]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(answer.splitlines()[-1])


def build(options: argparse.Namespace) -> dict[str, float]:
    """Build a bank of `clustered` vectors: seconds, peak memory, seconds a query."""
    imports = peak_bytes()
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
    peak = peak_bytes()
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
    peak = peak_bytes()
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


def main() -> None:
    """Build one bank and print a line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--factory", default="auto", help="FAISS factory string")
    print(json.dumps(build(parser.parse_args())))


if __name__ == "__main__":
    main()
