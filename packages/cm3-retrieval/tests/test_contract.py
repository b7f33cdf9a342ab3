from types import SimpleNamespace

import numpy as np
import pytest

from cm3_retrieval import Encoder, check_encoder


def test_our_encoder_keeps_the_contract(encoder):
    assert isinstance(encoder, Encoder)
    check_encoder(encoder)


def changed(encoder, **members):
    names = ("dim", "encoder_id", "encode_texts", "encode_images")
    return SimpleNamespace(**{name: getattr(encoder, name) for name in names} | members)


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("encode_texts", lambda v: 2 * v, "rows of length 1"),
        ("encode_images", lambda v: v.astype(np.float64), "wanted float32"),
        ("encode_images", lambda v: v[:, :-1], "encode_images: wanted"),
        ("encode_texts", lambda v: v[::-1].copy(), "depends on its batch"),
        ("encode_images", lambda v: np.repeat(v[:1], len(v), 0), "two pictures have one vector"),
        ("encode_texts", lambda v: np.full_like(v, np.nan), "finite"),
    ],
)
def test_a_broken_encoder_is_told_what_it_breaks(encoder, member, change, message):
    broken = changed(encoder, **{member: lambda x: change(getattr(encoder, member)(x))})
    with pytest.raises(AssertionError, match=message):
        check_encoder(broken)
