import pytest

from cm3_retrieval.index.config import IndexConfig


def test_wrong_settings():
    with pytest.raises(ValueError, match="nprobe: wanted at least 1, got 0"):
        IndexConfig(nprobe=0)
    with pytest.raises(ValueError, match="factory: wanted a FAISS factory string or 'auto'"):
        IndexConfig(factory="")


@pytest.mark.parametrize("name", ["nprobe", "ef_search", "rescore", "train_rows"])
@pytest.mark.parametrize("value", [1.5, True, "8"])
def test_numbers_of_things_are_integers(name, value):
    with pytest.raises(ValueError, match=f"{name}: wanted an integer, at least"):
        IndexConfig(**{name: value})
