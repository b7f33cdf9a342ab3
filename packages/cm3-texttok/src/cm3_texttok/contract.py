"""Checks that every `interface.Tokenizer` must pass; run them on your own."""

from collections.abc import Callable

import numpy as np

from cm3_texttok.interface import Tokenizer
from cm3_texttok.ragged import id_dtype

_TEXTS = (
    "a red apple",
    "  two  spaces, around and between  ",
    "line\nnext line\r\n\ttab",
    "\0 \x7f \x85 \u00a0 \u2028 \ufeff",
    "e\u0301 is not \u00e9, \ufb01 is not fi",
    "\u2581 the space mark of sentencepiece, \u2047 and its unknown mark",
    "\ufffd \U0001f98a \U0001f469\U0001f3fd\u200d\U0001f692 \U0010ffff",
    "\u0627\u0644\u0633\u0644\u0627\u0645 \u4f60\u597d \u0928\u092e\u0938\u094d\u0924\u0947",
    "<pad><eos><break><mask><infill><mask:1><unk><s></s><0x41>",
    "a <break> b <eos>",
)


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Check what `Tokenizer` promises.

    Args:
        tokenizer: The implementation.

    Raises:
        AssertionError: A promise is broken; the message names it.
    """
    assert isinstance(tokenizer, Tokenizer), "a member of the Protocol is missing"
    size = tokenizer.vocab_size
    mask_ids = tokenizer.mask_ids
    assert isinstance(mask_ids, tuple) and mask_ids, "mask_ids is a tuple of at least one id"
    structural = [tokenizer.pad_id, tokenizer.eos_id, tokenizer.break_id, tokenizer.infill_id]
    structural += mask_ids
    assert all(isinstance(i, int) and 0 <= i < size for i in structural), "ids lie in [0, V)"
    assert len(set(structural)) == len(structural), "structural ids are distinct"

    assert tokenizer.encode("") == [], "the empty text has no ids"
    assert tokenizer.decode([]) == "", "no ids are the empty text"
    assert len(tokenizer.encode_batch([])) == 0, "an empty batch has no rows"
    rows = tokenizer.encode_batch(_TEXTS)
    assert len(rows) == len(_TEXTS), "encode_batch gives one row per text"
    for text, row in zip(_TEXTS, rows, strict=True):
        assert isinstance(row, np.ndarray) and row.ndim == 1, "a row is a 1-D array"
        wanted = id_dtype(size)
        assert row.dtype == wanted, f"a row of ids below {size} is {wanted}, got {row.dtype}"
        ids = tokenizer.encode(text)
        assert row.tolist() == ids, f"encode_batch differs from encode on {text!r}"
        assert all(isinstance(i, int) and 0 <= i < size for i in ids), f"ids of {text!r}: {ids}"
        assert not set(ids) & set(structural), f"{text!r} became a structural id: {ids}"
        assert tokenizer.decode(ids) == text, f"{text!r} came back as {tokenizer.decode(ids)!r}"
        framed = [structural[0], *ids, *structural[1:]]
        assert tokenizer.decode(framed) == text, "decode skips structural ids"

    _assert_value_error(lambda: tokenizer.encode("a lone surrogate \ud800"), "encode(surrogate)")
    _assert_value_error(lambda: tokenizer.decode([size]), "decode([vocab_size])")
    _assert_value_error(lambda: tokenizer.decode([-1]), "decode([-1])")


def _assert_value_error(call: Callable[[], object], name: str) -> None:
    try:
        call()
    except ValueError:
        return
    raise AssertionError(f"{name} raises a ValueError")
