"""FAISS's number of threads, set for one block of code."""

import faiss


class FaissThreads:
    """FAISS's number of threads for a `with` block.

    FAISS sets the number for all of the process's OpenMP, torch's included, so the block restores
    the old one.
    """

    def __init__(self, threads: int) -> None:
        """Take the number of threads for the block."""
        self._threads = threads

    def __enter__(self) -> None:
        """Set the number."""
        self._before = faiss.omp_get_max_threads()
        if self._before != self._threads:
            faiss.omp_set_num_threads(self._threads)

    def __exit__(self, *_: object) -> None:
        """Restore the old number."""
        if self._before != self._threads:
            faiss.omp_set_num_threads(self._before)
