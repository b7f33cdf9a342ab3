"""The paper's findings at the size that two cores can afford; see `benchmarks/reproduce.py`."""
