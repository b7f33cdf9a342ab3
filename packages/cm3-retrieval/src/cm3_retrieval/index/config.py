"""The choice of an index and its settings, importable without FAISS."""

from dataclasses import dataclass

from cm3_retrieval.index.checks import checked_count

AUTO = "auto"
"""Placeholder for the factory string that suits the number of rows."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """An index and its settings; the defaults follow from the number of rows."""

    factory: str = AUTO
    """FAISS's factory string, such as `Flat`, `HNSW32`, `IVF1024,PQ64x4fs`; `auto` chooses."""

    nprobe: int | None = None
    """Cells of an IVF index that a query visits. None: as in `TIERS`, or an eighth of the cells."""

    ef_search: int = 128
    """Width of the search in an HNSW graph."""

    ef_construction: int = 80
    """Width of the search while an HNSW graph is built."""

    rescore: int | None = None
    """Candidates fetched for each result and rescored with their full vectors; 0 turns rescoring
    off. None: 16 where the index compresses vectors, 0 where it holds them in full."""

    train_rows: int | None = None
    """Random vectors that train an IVF or PQ index. None: 64 per cell, at least 65,536."""

    seed: int = 0
    """Seed of that draw and of k-means."""

    def __post_init__(self) -> None:
        """Check every range."""
        least = {"nprobe": 1, "ef_search": 1, "ef_construction": 1, "rescore": 0, "train_rows": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None:
                checked_count(name, value, bound)
        if not self.factory:
            raise ValueError("factory: wanted a FAISS factory string or 'auto', got ''")
