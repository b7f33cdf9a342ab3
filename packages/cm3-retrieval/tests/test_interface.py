import pytest

from cm3_retrieval.interface import same_encoder

HASH, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (f"local-dir:/a/clip:{HASH}", f"local-dir:/b/clip:{HASH}", True),
        (f"local-dir:clip:{HASH}", f"hf-hub:me/clip:{HASH}", True),
        (f"clip:{HASH}", f"clip:{OTHER}", False),
        (f"clip:{HASH}", f"clip:{HASH[:-1]}", False),
        ("shifted:1", "other:1", False),
        ("words", "words", True),
        ("words", "word", False),
        (f"clip:{HASH}", "clip", False),
        (f"clip:{HASH}", f"clip:{HASH}\n", False),
    ],
)
def test_the_hash_of_the_weights_decides(one, other, same):
    assert same_encoder(one, other) == same_encoder(other, one) == same
