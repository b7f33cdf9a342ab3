"""FAISS's number of threads, set for one block of code."""

import faiss


class FaissThreads:
    """Sets FAISS's threads for a `with` block.

    FAISS sets the count of the whole process's OpenMP, torch's too: the block gives back what was
    there.
    """

    def __init__(self, threads: int) -> None:
        """Take the number of threads inside the block."""
        self._threads = threads

    def __enter__(self) -> None:
        """Set the count."""
        self._before = faiss.omp_get_max_threads()
        if self._before != self._threads:
            faiss.omp_set_num_threads(self._threads)

    def __exit__(self, *_: object) -> None:
        """Set the old count again."""
        if self._before != self._threads:
            faiss.omp_set_num_threads(self._before)
