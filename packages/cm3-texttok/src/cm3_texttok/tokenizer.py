"""Text <-> ids: BPE of sentencepiece with byte fallback, lossless on every valid Unicode text.

Takes texts, gives ids. The paper trains its own tokenizer of 56,320 pieces (arXiv
2309.02591, section 2.1). The structural tokens are *control* symbols, which sentencepiece never
matches in a text.
"""

import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from cm3_texttok.arrays import integer_array, require, utf8
from cm3_texttok.artifact import atomic_file, check_stamp, sha256_of_file, stamp, write_json
from cm3_texttok.interface import INTERFACE_VERSION, TOKENIZER_COMPONENT
from cm3_texttok.ragged import Ragged, id_dtype

MODEL_FILE = "tokenizer.model"
CONFIG_FILE = "config.json"

# sentencepiece writes a space as this character and reads it back as a space. A text that holds
# it would lose it, so it is always encoded as its three bytes.
_SPACE_MARK = "\u2581".encode()

# What the trainer reads at a time: at most 2000 characters, cut before a space where there is one
# (no piece crosses a space). Left out are characters that separate, and the ones that the trainer
# takes for its own marks (it would skip the whole text): all of them still encode as bytes.
_MARKS = r"\n\r\t\0\u2581\u2585"
_SENTENCE = re.compile(rf"[^{_MARKS}]{{1,2000}}(?=[ {_MARKS}]|\Z)|[^{_MARKS}]{{2000}}")

# How `encode_batch` hands texts over: as one, this character between them, cut at line ends into
# bites of about 200 characters. The trainer never sees either character, so no piece holds one,
# and the ids are those of each text alone. Long texts cost sentencepiece more a character, and
# every row that it gives costs an object.
_SEPARATOR = "\0"
_BITE = re.compile(r"(?s:.){1,200}[^\n\0]*")


class TextTokenizer:
    """A trained text tokenizer; make one with `train` or `load`.

    Ids: `<pad> <eos> <break> <mask> <infill> <mask:1> ...` from 0 on, one id that is never used
    (sentencepiece demands an unknown piece), 256 bytes, then the pieces.
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Reads a sentencepiece model that `train` has made.

        Raises:
            ValueError: The bytes are no such model.
        """
        try:
            # Empty bytes would load silently, as a vocabulary of 0.
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model_bytes or b"\0")
        except RuntimeError as error:
            message = f"model_bytes: wanted a sentencepiece model, got {len(model_bytes)} bytes"
            raise ValueError(f"{message} that do not parse as one") from error
        self._model_bytes = model_bytes
        self._pad_id = self._control_id("<pad>")
        self._eos_id = self._control_id("<eos>")
        self._break_id = self._control_id("<break>")
        self._infill_id = self._control_id("<infill>")
        num_masks = next(n for n in itertools.count(1) if not self._is_control(_mask_name(n)))
        self._mask_ids = tuple(self._control_id(_mask_name(n)) for n in range(num_masks))
        every_id = list(range(self.vocab_size))
        control, unknown = self._processor.IsControl(every_id), self._processor.IsUnknown(every_id)
        self._is_silent = np.array(control) | np.array(unknown)  # (V,) ids that stand for no text
        self._space_mark_ids = self._processor.PieceToId(
            [f"<0x{byte:02X}>" for byte in _SPACE_MARK]
        )
        if any("\n" in piece or "\0" in piece for piece in self._processor.IdToPiece(every_id)):
            raise ValueError("model_bytes: wanted pieces without line ends, got another model")
        probe = "  \ufb01e\u0301\0 \u2581\t\n "  # what lossy normalisations change
        if self.decode(self.encode(probe)) != probe:
            raise ValueError("model_bytes: wanted a lossless model, as `train` makes, got another")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        vocab_size: int = 56320,
        num_masks: int = 16,
        num_threads: int = 2,
    ) -> "TextTokenizer":
        """Learns the pieces; the same texts and arguments give the same bytes.

        Args:
            texts: The corpus, read once; texts of any length.
            vocab_size: Number of ids, structural ids and the 256 bytes included.
            num_masks: Number of mask tokens, so of spans that one document can have cut out.
            num_threads: Threads that read the corpus. The model file records the number; the
                pieces do not depend on it.

        Raises:
            ValueError: The corpus is empty, holds a lone surrogate, or has too few or too many
                distinct pieces for `vocab_size`.
        """
        for name, value in (("num_masks", num_masks), ("num_threads", num_threads)):
            if value < 1:
                raise ValueError(f"{name}: wanted at least 1, got {value}")
        sentences = _sentences(texts)
        first = next(sentences, None)
        if first is None:
            raise ValueError("texts: wanted at least one text with characters, got none")
        failures: list[BaseException] = []

        def corpus() -> Iterator[bytes]:
            # The trainer turns an exception of its iterator into text: keep the exception itself.
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
                # A corpus without spaces would leave a space to the bytes of the space mark.
                required_chars=_SPACE_MARK.decode(),
                max_sentence_length=4 * 2000,  # in bytes; _SENTENCE cuts at 2000 characters
                pad_id=0,
                pad_piece="<pad>",
                eos_id=1,
                eos_piece="<eos>",
                bos_id=-1,
                # Ids that are free below unk_id go to the control symbols, in this order.
                unk_id=4 + num_masks,
                control_symbols=["<break>", "<mask>", "<infill>"]
                + [_mask_name(n) for n in range(1, num_masks)],
                num_threads=num_threads,
                minloglevel=2,
            )
        except RuntimeError as error:
            if failures:
                raise failures[0] from None
            raise ValueError(_explain(str(error), vocab_size)) from error
        return cls(model.getvalue())

    @classmethod
    def load(cls, folder: str | Path) -> "TextTokenizer":
        """Reads what `save` has written.

        Raises:
            FileNotFoundError: One of the two files is missing.
            ValueError: Another component or major version has written the folder, or a file
                differs from what was saved.
        """
        config_path, model_path = Path(folder) / CONFIG_FILE, Path(folder) / MODEL_FILE
        try:
            config = json.loads(config_path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{config_path}: wanted JSON, got: {error}") from error
        config = check_stamp(config, TOKENIZER_COMPONENT, INTERFACE_VERSION, config_path)
        sha256 = sha256_of_file(model_path)
        if sha256 != config.get("sha256"):
            raise ValueError(f"{model_path}: wanted SHA-256 {config.get('sha256')}, got {sha256}")
        tokenizer = cls(model_path.read_bytes())
        for name, value in tokenizer._ids().items():
            if config.get(name) != value:
                raise ValueError(f"{config_path}: {name}: wanted {value}, got {config.get(name)}")
        return tokenizer

    def save(self, folder: str | Path) -> None:
        """Writes `tokenizer.model`, then `config.json` with its hash and the structural ids."""
        model_path = Path(folder) / MODEL_FILE
        with atomic_file(model_path) as file:
            file.write(self._model_bytes)
        config = {
            **stamp(TOKENIZER_COMPONENT, INTERFACE_VERSION),
            "sha256": sha256_of_file(model_path),
            **self._ids(),
        }
        write_json(Path(folder) / CONFIG_FILE, config)

    @property
    def model_bytes(self) -> bytes:
        """The sentencepiece model, as it is in `tokenizer.model`."""
        return self._model_bytes

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._processor.GetPieceSize()

    @property
    def pad_id(self) -> int:
        """Id of `<pad>`."""
        return self._pad_id

    @property
    def eos_id(self) -> int:
        """Id of `<eos>`."""
        return self._eos_id

    @property
    def break_id(self) -> int:
        """Id of `<break>`."""
        return self._break_id

    @property
    def infill_id(self) -> int:
        """Id of `<infill>`."""
        return self._infill_id

    @property
    def mask_ids(self) -> tuple[int, ...]:
        """Ids of `<mask>`, `<mask:1>`, ..."""
        return self._mask_ids

    @property
    def byte_ids(self) -> range:
        """Ids of the 256 bytes, for what no learnt piece covers; learnt pieces stand behind."""
        first = self._processor.PieceToId("<0x00>")
        return range(first, first + 256)

    def encode(self, text: str) -> list[int]:
        """Text ids of `text`, never a structural id.

        Raises:
            TypeError: `text` is no str.
            ValueError: `text` holds a lone surrogate.
        """
        return self._encode(utf8(text, "text"))

    def encode_batch(self, texts: Sequence[str], *, num_threads: int | None = None) -> Ragged:
        """Text ids of each text, uint16 where `vocab_size` allows it, else uint32.

        Args:
            texts: Any number of texts.
            num_threads: Threads that encode; None takes one a core.

        Raises:
            TypeError: `texts` is one str, or one of them is none.
            ValueError: A text holds a lone surrogate.
        """
        if isinstance(texts, str):
            raise TypeError("texts: wanted a sequence of str, got one str")
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"num_threads: wanted at least 1, got {num_threads}")
        texts = list(texts)
        try:
            joined = _SEPARATOR.join(texts)  # fails on what is no str
            joined.encode()
        except (TypeError, UnicodeEncodeError):
            for n, text in enumerate(texts):
                utf8(text, f"texts[{n}]")  # says which
            raise
        alone: dict[int, list[int]] = {}
        if _SPACE_MARK.decode() in joined or joined.count(_SEPARATOR) >= max(len(texts), 1):
            marks = {_SPACE_MARK.decode(), _SEPARATOR}
            odd = [n for n, text in enumerate(texts) if not marks.isdisjoint(text)]
            alone = {n: self._encode(texts[n].encode()) for n in odd}
            joined = _SEPARATOR.join("" if n in alone else text for n, text in enumerate(texts))
        bites = _BITE.findall(joined)
        rows = self._processor.Encode(bites, return_type="numpy", num_threads=num_threads or -1)
        ids = np.concatenate([np.empty(0, np.int32), *rows])
        # 8 9 0 0 7, separator 0 -> values 8 9 7, ends at 2 3 less 0 1 -> offsets 0 2 2 3
        ends = np.flatnonzero(ids == self.byte_ids[ord(_SEPARATOR)])
        values = np.delete(ids, ends).astype(id_dtype(self.vocab_size))
        last = [values.size] if texts else []
        offsets = np.concatenate([[0], ends - np.arange(ends.size), last]).astype(np.int64)
        batch = Ragged(values, offsets)
        return batch.with_rows(alone) if alone else batch

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, structural ids skipped; bytes that are no UTF-8 give U+FFFD.

        Raises:
            ValueError: An id lies outside `[0, vocab_size)`.
        """
        array = integer_array(ids, "ids")
        inside = (array >= 0) & (array < self.vocab_size)
        require(inside, array, "ids", f"an id in [0, {self.vocab_size})")
        return self._processor.Decode(array[~self._is_silent[array]].tolist())

    def _encode(self, text: bytes) -> list[int]:
        if _SPACE_MARK not in text:
            return self._processor.Encode(text)
        first, *rest = self._processor.Encode(text.split(_SPACE_MARK))
        return first + [i for part in rest for i in (*self._space_mark_ids, *part)]

    def _ids(self) -> dict[str, object]:
        return {
            "vocab_size": self.vocab_size,
            "pad_id": self.pad_id,
            "eos_id": self.eos_id,
            "break_id": self.break_id,
            "infill_id": self.infill_id,
            "mask_ids": list(self.mask_ids),
        }

    def _is_control(self, piece: str) -> bool:
        return self._processor.IsControl(self._processor.PieceToId(piece))

    def _control_id(self, piece: str) -> int:
        if not self._is_control(piece):
            raise ValueError(f"model_bytes: wanted the control symbol {piece}, got a model without")
        return self._processor.PieceToId(piece)


def _mask_name(number: int) -> str:
    return f"<mask:{number}>" if number else "<mask>"


def _sentences(texts: Iterable[str]) -> Iterator[bytes]:
    """The corpus in the bites that sentencepiece's trainer takes."""
    for position, text in enumerate(texts):
        utf8(text, f"texts[{position}]")
        for match in _SENTENCE.finditer(text):
            yield match.group().encode()


def _explain(message: str, vocab_size: int) -> str:
    """The trainer's complaint about the vocabulary's size, in our words."""
    if too_high := re.search(r"value <= (\d+)", message):
        return f"vocab_size: wanted at most {too_high[1]} for this corpus, got {vocab_size}"
    if too_low := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"vocab_size: wanted at least {too_low[1]} for this corpus, got {vocab_size}"
    return f"texts: sentencepiece cannot train on this corpus: {message}"
