"""Learning of a sentencepiece BPE with byte fallback that loses nothing.

The structural tokens are *control* symbols, which sentencepiece never matches in a text.
"""

import io
import itertools
import re
from collections.abc import Iterable, Iterator

import sentencepiece

from cm3_texttok.arrays import utf8

SPACE_MARK = "\u2581".encode()
"""The character by which sentencepiece writes a space. It reads it back as a space, so a text that
holds it would lose it: it is always encoded as its three bytes."""

# The trainer reads at most 2000 characters at a time, cut before a space if there is one (no piece
# crosses a space). Separators are left out, as are the characters that the trainer takes for its
# own marks (it would skip the whole text): all of them still encode as bytes.
_MARKS = r"\n\r\t\0\u2581\u2585"
_SENTENCE = re.compile(rf"[^{_MARKS}]{{1,2000}}(?=[ {_MARKS}]|\Z)|[^{_MARKS}]{{2000}}")


def check_counts(*, vocab_size: int, num_masks: int, num_threads: int) -> None:
    """Refuse, with a ValueError that names it, what no corpus can be trained with."""
    # The structural ids (<mask> is the first mask), the unused one, the bytes, and one id for a
    # character of the corpus or a space:
    least = 4 + num_masks + 1 + 256 + 1
    for name, value, low, high in (
        ("num_masks", num_masks, 1, 2**16),
        ("num_threads", num_threads, 1, 1024),
        ("vocab_size", vocab_size, least, 2**31 - 1),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name}: wanted {low} to {high}, got {value}")


def train_model(
    texts: Iterable[str], *, vocab_size: int, num_masks: int, num_threads: int
) -> bytes:
    """Learn the pieces and return the sentencepiece model; see `TextTokenizer.train`."""
    check_counts(vocab_size=vocab_size, num_masks=num_masks, num_threads=num_threads)
    sentences = _sentences(texts)
    first = next(sentences, None)
    if first is None:
        raise ValueError("texts: wanted at least one text with characters, got none")
    failures: list[BaseException] = []

    def corpus() -> Iterator[bytes]:
        # The trainer turns an exception of its iterator into a message: keep the exception.
        try:
            yield from itertools.chain([first], sentences)
        except (Exception, KeyboardInterrupt) as error:
            failures.append(error)
            raise

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=corpus(),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=True,
            byte_fallback=True,
            # Exact round trip: no normalisation, no space added or removed.
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            # Without it, a corpus without spaces would encode a space as the mark's three bytes.
            required_chars=SPACE_MARK.decode(),
            max_sentence_length=4 * 2000,  # in bytes; _SENTENCE cuts at 2000 characters
            pad_id=0,
            pad_piece="<pad>",
            eos_id=1,
            eos_piece="<eos>",
            bos_id=-1,
            # The control symbols get the free ids below unk_id, in this order.
            unk_id=4 + num_masks,
            control_symbols=["<break>", "<mask>", "<infill>"]
            + [mask_name(n) for n in range(1, num_masks)],
            num_threads=num_threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        if failures:
            raise failures[0] from None
        raise ValueError(_explain(str(error), vocab_size)) from error
    return model.getvalue()


def mask_name(number: int) -> str:
    """Return the name of a mask token, counted from 0."""
    return f"<mask:{number}>" if number else "<mask>"


def _sentences(texts: Iterable[str]) -> Iterator[bytes]:
    """Yield the corpus in chunks that sentencepiece's trainer accepts."""
    for position, text in enumerate(texts):
        utf8(text, f"texts[{position}]")
        for match in _SENTENCE.finditer(text):
            yield match.group().encode()


def _explain(message: str, vocab_size: int) -> str:
    """Reword the trainer's complaint about the size of the vocabulary."""
    if too_high := re.search(r"value <= (\d+)", message):
        return f"vocab_size: wanted at most {too_high[1]} for this corpus, got {vocab_size}"
    if too_low := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"vocab_size: wanted at least {too_low[1]} for this corpus, got {vocab_size}"
    return f"texts: sentencepiece cannot train on this corpus: {message}"
