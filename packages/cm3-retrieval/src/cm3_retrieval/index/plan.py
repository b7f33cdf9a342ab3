"""The FAISS index that suits a number of documents, and its expected size.

Takes the number of rows and the length of a vector; gives a factory string with its settings, and
the expected bytes. Paper 2.1 (arXiv 2309.02591) asks for maximum inner product search and leaves
the index open (FAISS, arXiv 2401.08281).
"""

import re
from dataclasses import dataclass
from typing import Any

import faiss

from cm3_retrieval.index.config import AUTO, IndexConfig


@dataclass(frozen=True, kw_only=True)
class Tier:
    """One line of the table of sizes."""

    up_to_rows: int
    """Largest number of documents that the index is meant for."""

    factory: str
    """FAISS's factory string; `{pieces}` stands for the number of PQ pieces, about `dim / 4`."""

    nprobe: int = 1
    """Cells visited by a query."""


TIERS = (
    Tier(up_to_rows=200_000, factory="Flat"),
    Tier(up_to_rows=2_000_000, factory="IVF1024,PQ{pieces}x4fs", nprobe=128),
    Tier(up_to_rows=10_000_000, factory="IVF4096,PQ{pieces}x4fs", nprobe=256),
    Tier(up_to_rows=100_000_000, factory="IVF65536_HNSW32,PQ{pieces}x4fs", nprobe=128),
    Tier(up_to_rows=1_000_000_000, factory="IVF262144_HNSW32,PQ{pieces}x4fs", nprobe=256),
)
"""Index by number of rows. Sizes up to 10^6 were measured here; the rest is FAISS's advice."""


def plan_index(rows: int, dim: int, config: IndexConfig | None = None) -> IndexConfig:
    """Choose the settings that `config` leaves open.

    Args:
        rows: Number of documents.
        dim: Length of a vector.
        config: Settings already chosen.

    Returns:
        A config in which `factory`, `nprobe`, `rescore` and `train_rows` are given.

    Raises:
        ValueError: More rows than the table of sizes covers, and no factory string.
    """
    config = config or IndexConfig()
    factory, nprobe = config.factory, config.nprobe
    if factory == AUTO:
        tier = next((tier for tier in TIERS if rows <= tier.up_to_rows), None)
        if tier is None:
            raise ValueError(
                f"factory: wanted a FAISS factory string for {rows} rows, the table of sizes ends "
                f"at {TIERS[-1].up_to_rows}"
            )
        factory = tier.factory.format(pieces=_pieces(dim))
        nprobe = tier.nprobe if nprobe is None else nprobe
    cells = cells_of(factory)
    full = holds_full_vectors(factory)
    return IndexConfig(
        factory=factory,
        nprobe=min(nprobe or max(1, cells // 8), max(cells, 1)),
        ef_search=config.ef_search,
        ef_construction=config.ef_construction,
        rescore=(0 if full else 16) if config.rescore is None else config.rescore,
        train_rows=config.train_rows or max(64 * cells, 65_536),
        seed=config.seed,
    )


def expected_bytes(rows: int, dim: int, config: IndexConfig | None = None) -> dict[str, int]:
    """Estimate the bytes of a bank of `rows` documents, without metadata.

    Returns:
        `memory`: the index, in main memory; `disk`: the index and the full vectors, which can be
        memory-mapped; `build`: the peak while building, the vectors included.
    """
    plan = plan_index(rows, dim, config)
    raw = 4 * rows * dim
    if plan.factory == "Flat":
        index = raw + 16 * rows  # keys, and the map from key to row
        return {"memory": index, "disk": raw + 8 * rows, "build": raw + index}
    empty: Any = open_factory(plan.factory, dim)
    if isinstance(empty, faiss.IndexHNSW):
        graph: Any = empty.hnsw
        links = 4 * rows * (graph.nb_neighbors(0) + 2)
        index = links + rows * faiss.downcast_index(empty.storage).sa_code_size()
    else:
        code = (faiss.try_extract_index_ivf(empty) or empty).sa_code_size()
        index = rows * (code + 8) + 4 * cells_of(plan.factory) * dim
    kept = raw if plan.rescore else 0
    return {"memory": index, "disk": index + kept, "build": raw + index}


def open_factory(factory: str, dim: int) -> faiss.Index:
    """Make an empty inner-product index.

    Raises:
        ValueError: FAISS does not understand the string, or it does not suit `dim`.
    """
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(
            f"factory: wanted a FAISS factory string for vectors of {dim}, got {factory!r} "
            f"({reason})"
        ) from error
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:  # FAISS makes HNSW16_PQ8 for distances
        raise ValueError(f"factory: wanted an index for inner products, FAISS has no {factory!r}")
    return index


def holds_full_vectors(factory: str) -> bool:
    """Tell whether the index keeps float32 vectors as they came: `Flat`, `IVF..,Flat`, `HNSW..`.

    `PCA8,Flat` keeps eight numbers of each, and `HNSW32_PQ8` a code.
    """
    graph_or_cells = r"(IVF[^,]*|HNSW\d*|NSG\d*)"
    return re.fullmatch(rf"({graph_or_cells},)?Flat|HNSW\d*|NSG\d*", factory) is not None


def cells_of(factory: str) -> int:
    """Return the number of cells of an IVF index, 4096 of `IVF4096_HNSW32,PQ64`; 0 for others."""
    for part in factory.split(","):
        if part.startswith("IVF"):
            digits = part[3:].split("_")[0].split("(")[0]
            return int(digits) if digits.isdigit() else 0
    return 0


def _pieces(dim: int) -> int:
    """Return the number of PQ pieces: an even divisor of `dim`, of 4 to 6 numbers each.

    A length that has none, such as 514 = 2 * 257, gets the fewest pieces of at most 4 numbers:
    with longer ones the codes would tell little.
    """
    even = max((n for n in range(2, dim // 4 + 1, 2) if dim % n == 0), default=0)
    if 6 * even >= dim:
        return even
    return min((n for n in range(2, dim + 1) if dim % n == 0 and 4 * n >= dim), default=dim)
