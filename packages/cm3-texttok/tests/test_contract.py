import numpy as np
import pytest

from cm3_texttok import TextTokenizer, check_tokenizer


def test_own_class_keeps_the_contract(tokenizer):
    check_tokenizer(tokenizer)


class ByteTokenizer:
    """A second implementation: one id a byte, after six structural ids."""

    vocab_size = 6 + 256
    pad_id, eos_id, break_id, infill_id = 0, 1, 2, 3
    mask_ids = (4, 5)

    def encode(self, text):
        return [6 + byte for byte in text.encode()]

    def encode_batch(self, texts):
        return [np.array(self.encode(text), np.uint16) for text in texts]

    def decode(self, ids):
        if any(not 0 <= i < self.vocab_size for i in ids):
            raise ValueError(f"ids: wanted ids below {self.vocab_size}, got {ids}")
        return bytes(i - 6 for i in ids if i >= 6).decode()


def test_another_class_can_keep_it():
    check_tokenizer(ByteTokenizer())


class Lossy(ByteTokenizer):
    def encode(self, text):
        return super().encode(" ".join(text.split()))


class Injectable(ByteTokenizer):
    def encode(self, text):
        return [
            i for part in text.split("<break>") for i in (*super(Injectable, self).encode(part), 2)
        ][:-1]


class Twin(ByteTokenizer):
    mask_ids = (3,)


class BatchDiffers(ByteTokenizer):
    def encode_batch(self, texts):
        return [row[:3] for row in super().encode_batch(texts)]


class BatchOfLists(ByteTokenizer):
    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]


class BatchTooWide(ByteTokenizer):
    def encode_batch(self, texts):
        return [row.astype(np.int64) for row in super().encode_batch(texts)]


class BatchLosesARow(ByteTokenizer):
    def encode_batch(self, texts):
        return super().encode_batch(texts)[:-1]


class ShowsStructure(ByteTokenizer):
    def decode(self, ids):
        return "".join("#" if 0 <= i < 6 else super(ShowsStructure, self).decode([i]) for i in ids)


class AcceptsSurrogates(ByteTokenizer):
    def encode(self, text):
        return [6 + byte for byte in text.encode("utf-8", "surrogatepass")]


class NoBreak:
    vocab_size = 262


@pytest.mark.parametrize(
    "broken",
    [Lossy, Injectable, Twin, BatchDiffers, BatchOfLists, BatchTooWide, BatchLosesARow]
    + [ShowsStructure, AcceptsSurrogates, NoBreak],
)
def test_broken_promises_are_found(broken):
    with pytest.raises((AssertionError, UnicodeDecodeError)):
        check_tokenizer(broken())


def test_smallest_tokenizer_keeps_it():
    check_tokenizer(TextTokenizer.train(["ab ab"], vocab_size=265, num_masks=1))
