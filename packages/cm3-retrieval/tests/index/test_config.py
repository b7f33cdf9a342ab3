import pytest

from cm3_retrieval.index.config import IndexConfig


def test_wrong_settings():
    with pytest.raises(ValueError, match="nprobe: wanted at least 1, got 0"):
        IndexConfig(nprobe=0)
    with pytest.raises(ValueError, match="factory: wanted a FAISS factory string or 'auto'"):
        IndexConfig(factory="")
