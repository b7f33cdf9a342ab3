import pytest

import cm3_retrieval


def test_the_package_and_its_configs_import_nothing_heavy(heavy_after):
    code = "from cm3_retrieval import ClipTrainingConfig, Encoder, IndexConfig, RetrievalConfig"
    assert heavy_after(f"{code}; IndexConfig(), ClipTrainingConfig(), RetrievalConfig()") == set()
    assert heavy_after("from cm3_retrieval import MemoryBank") == {"faiss", "pyarrow"}


def test_every_public_name_is_there_and_listed():
    for name in cm3_retrieval.__all__:
        assert getattr(cm3_retrieval, name) is not None
    assert set(cm3_retrieval.__all__) <= set(dir(cm3_retrieval))
    with pytest.raises(AttributeError, match="nothing"):
        cm3_retrieval.nothing  # noqa: B018
