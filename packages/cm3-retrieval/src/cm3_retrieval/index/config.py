"""The choice of an index and its settings.

Imports nothing heavy, so that a command line or a configuration file can name an index without
loading FAISS.
"""

from dataclasses import dataclass

AUTO = "auto"
"""Stands for the factory string that suits the number of rows."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """An index and its settings; what is left as it is follows from the number of rows."""

    factory: str = AUTO
    """FAISS's factory string, such as `Flat`, `HNSW32`, `IVF1024,PQ64x4fs`; `auto` chooses."""

    nprobe: int | None = None
    """Cells of an IVF index that a query visits. None: the table's, or an eighth of the cells."""

    ef_search: int = 128
    """Width of the search in an HNSW graph."""

    ef_construction: int = 80
    """Width of the search while an HNSW graph is built."""

    rescore: int | None = None
    """Candidates fetched for each wanted result and ranked anew by their whole vectors; 0 ranks
    none. None: 16 where the index holds shortened vectors, 0 where it holds them whole."""

    train_rows: int | None = None
    """Vectors that train an IVF or PQ index, drawn at random. None: 64 a cell, at least 65,536."""

    seed: int = 0
    """Of that draw and of k-means."""

    def __post_init__(self) -> None:
        """Check every range."""
        least = {"nprobe": 1, "ef_search": 1, "ef_construction": 1, "rescore": 0, "train_rows": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name}: wanted at least {bound}, got {value}")
        if not self.factory:
            raise ValueError("factory: wanted a FAISS factory string or 'auto', got ''")
