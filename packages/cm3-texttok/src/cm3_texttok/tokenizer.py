"""Text to ids and back: sentencepiece BPE with byte fallback, lossless on valid Unicode.

The paper trains its own tokenizer of 56,320 pieces (arXiv 2309.02591, section 2.1).
`cm3_texttok.training` learns the pieces.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from cm3_texttok.arrays import integer_array, ranges, require, utf8
from cm3_texttok.artifact import atomic_file, check_stamp, sha256_of_file, stamp, write_json
from cm3_texttok.interface import INTERFACE_VERSION, TOKENIZER_COMPONENT
from cm3_texttok.ragged import Ragged, id_dtype
from cm3_texttok.text_file import parse_object
from cm3_texttok.training import SPACE_MARK, mask_name, train_model

MODEL_FILE = "tokenizer.model"
"""The model's file; on disk with the first 16 digits of its SHA-256: `tokenizer-HASH.model`."""
CONFIG_FILE = "config.json"

# `encode_batch` joins the texts with this character and cuts the whole at line ends into chunks of
# about 200 characters. The trainer never sees either character, so no piece holds one, and the ids
# are those of each text alone. Long texts cost sentencepiece more per character, and every row that
# it returns costs an object.
_SEPARATOR = "\0"
_CHUNK = re.compile(r"(?s:.){1,200}[^\n\0]*")


class TextTokenizer:
    """A trained text tokenizer; `train` and `load` make one.

    The ids are `<pad> <eos> <break> <mask> <infill> <mask:1> ...` from 0 on, one that is never used
    (sentencepiece demands an unknown piece), the 256 bytes, then the learnt pieces.
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Read a sentencepiece model that `train` made.

        Raises:
            ValueError: The bytes are not such a model.
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
        num_masks = next(n for n in itertools.count(1) if not self._is_control(mask_name(n)))
        self._mask_ids = tuple(self._control_id(mask_name(n)) for n in range(num_masks))
        every_id = list(range(self.vocab_size))
        control, unknown = self._processor.IsControl(every_id), self._processor.IsUnknown(every_id)
        self._is_silent = np.array(control) | np.array(unknown)  # (V,) ids without text
        self._space_mark_ids = self._processor.PieceToId([f"<0x{byte:02X}>" for byte in SPACE_MARK])
        if any("\n" in piece or "\0" in piece for piece in self._processor.IdToPiece(every_id)):
            raise ValueError("model_bytes: wanted pieces without line ends, got another model")
        probe = "  \ufb01e\u0301\0 \u2581\t\n "  # text that lossy normalisations change
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
        """Learn the pieces; the same texts and arguments give the same bytes.

        Args:
            texts: The corpus, read once; texts may have any length.
            vocab_size: Number of ids, including the structural ids and the 256 bytes.
            num_masks: Number of mask tokens: the most spans that can be cut out of a document.
            num_threads: Threads that read the corpus. The model file records the number; the
                pieces do not depend on it.

        Raises:
            ValueError: The corpus is empty, holds a lone surrogate, or has too few or too many
                distinct pieces for `vocab_size`.
        """
        return cls(
            train_model(texts, vocab_size=vocab_size, num_masks=num_masks, num_threads=num_threads)
        )

    @classmethod
    def load(cls, folder: str | Path) -> "TextTokenizer":
        """Read a tokenizer that `save` wrote.

        Raises:
            FileNotFoundError: One of the two files is missing.
            ValueError: Another component or major version wrote the folder, or a file differs
                from what was saved.
        """
        config_path = Path(folder) / CONFIG_FILE
        config = _read_config(config_path)
        model_path = Path(folder) / config["model"]
        sha256 = sha256_of_file(model_path)
        if sha256 != config.get("sha256"):
            raise ValueError(f"{model_path}: wanted SHA-256 {config.get('sha256')}, got {sha256}")
        tokenizer = cls(model_path.read_bytes())
        for name, value in tokenizer._ids().items():
            if config.get(name) != value:
                raise ValueError(f"{config_path}: {name}: wanted {value}, got {config.get(name)}")
        return tokenizer

    def save(self, folder: str | Path) -> None:
        """Write the model, then `config.json` with its file, its hash and the structural ids.

        A save that is killed leaves the old tokenizer or the new one.

        Raises:
            ValueError: The folder holds the `config.json` of something else.
            OSError: The disk is full or the folder not writable; no partial file is left, and an
                earlier tokenizer is untouched.
        """
        config_path, sha256 = Path(folder) / CONFIG_FILE, hashlib.sha256(self._model_bytes)
        before = _read_config(config_path)["model"] if config_path.exists() else None
        plain, digest = Path(MODEL_FILE), sha256.hexdigest()
        name = f"{plain.stem}-{digest[:16]}{plain.suffix}"
        with atomic_file(Path(folder) / MODEL_FILE, name=lambda _: name) as file:
            file.write(self._model_bytes)
        stamped = stamp(TOKENIZER_COMPONENT, INTERFACE_VERSION)
        write_json(config_path, {**stamped, "model": name, "sha256": digest, **self._ids()})
        if before not in (None, name):
            (Path(folder) / before).unlink(missing_ok=True)

    @property
    def model_bytes(self) -> bytes:
        """The sentencepiece model, the content of its file."""
        return self._model_bytes

    @property
    def sha256(self) -> str:
        """Hex digest of the pieces in the order of their ids."""
        pieces = self._processor.IdToPiece(list(range(self.vocab_size)))
        return hashlib.sha256(json.dumps(pieces).encode()).hexdigest()

    @property
    def silent_ranges(self) -> tuple[tuple[int, int], ...]:
        """Ranges [start, stop) of the ids that no text has."""
        return ranges(self._is_silent)

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
        """Ids of the 256 bytes, for text that no learnt piece covers; the pieces follow."""
        first = self._processor.PieceToId("<0x00>")
        return range(first, first + 256)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, never a structural one.

        Raises:
            TypeError: `text` is not a str.
            ValueError: `text` holds a lone surrogate.
        """
        return self._encode(utf8(text, "text"))

    def encode_batch(self, texts: Sequence[str], *, num_threads: int | None = None) -> Ragged:
        """Return the ids of each text, uint16 where `vocab_size` allows it, else uint32.

        Args:
            texts: Any number of texts.
            num_threads: Threads that encode; None takes one per core.

        Raises:
            TypeError: `texts` is a single str, or holds something else.
            ValueError: A text holds a lone surrogate.
        """
        if isinstance(texts, str):
            raise TypeError("texts: wanted a sequence of str, got one str")
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"num_threads: wanted at least 1, got {num_threads}")
        texts = list(texts)
        try:
            joined = _SEPARATOR.join(texts)  # fails unless all are str
            joined.encode()
        except (TypeError, UnicodeEncodeError):
            for n, text in enumerate(texts):
                utf8(text, f"texts[{n}]")  # says which
            raise
        alone: dict[int, list[int]] = {}
        if SPACE_MARK.decode() in joined or joined.count(_SEPARATOR) >= max(len(texts), 1):
            marks = {SPACE_MARK.decode(), _SEPARATOR}
            odd = [n for n, text in enumerate(texts) if not marks.isdisjoint(text)]
            alone = {n: self._encode(texts[n].encode()) for n in odd}
            joined = _SEPARATOR.join("" if n in alone else text for n, text in enumerate(texts))
        chunks = _CHUNK.findall(joined)
        rows = self._processor.Encode(chunks, return_type="numpy", num_threads=num_threads or -1)
        ids = np.concatenate([np.empty(0, np.int32), *rows])
        # 8 9 0 0 7, separator 0 -> values 8 9 7, ends at 2 3 less 0 1 -> offsets 0 2 2 3
        ends = np.flatnonzero(ids == self.byte_ids[ord(_SEPARATOR)])
        values = np.delete(ids, ends).astype(id_dtype(self.vocab_size))
        last = [values.size] if texts else []
        offsets = np.concatenate([[0], ends - np.arange(ends.size), last]).astype(np.int64)
        batch = Ragged(values, offsets)
        return batch.with_rows(alone) if alone else batch

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without structural ones; U+FFFD for invalid UTF-8.

        Raises:
            ValueError: An id lies outside `[0, vocab_size)`.
        """
        array = integer_array(ids, "ids")
        inside = (array >= 0) & (array < self.vocab_size)
        require(inside, array, "ids", f"an id in [0, {self.vocab_size})")
        return self._processor.Decode(array[~self._is_silent[array]].tolist())

    def _encode(self, text: bytes) -> list[int]:
        if SPACE_MARK not in text:
            return self._processor.Encode(text)
        first, *rest = self._processor.Encode(text.split(SPACE_MARK))
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


def load_text_tokenizer(folder: str | Path) -> TextTokenizer:
    """Read a tokenizer that `TextTokenizer.save` wrote; errors as of `TextTokenizer.load`."""
    return TextTokenizer.load(folder)


def check_target(folder: str | Path) -> None:
    """Refuse a folder with the `config.json` of something else than a saved tokenizer.

    `save` asks, too; before a long training it is asked so that nothing is lost.

    Raises:
        ValueError: The file is of another component, or none of ours.
    """
    path = Path(folder) / CONFIG_FILE
    if path.exists():
        _read_config(path)


def _read_config(path: Path) -> dict[str, Any]:
    """Read the `config.json` of a saved tokenizer."""
    config = parse_object(path.read_bytes(), path)
    config = check_stamp(config, TOKENIZER_COMPONENT, INTERFACE_VERSION, path)
    name = config.setdefault("model", MODEL_FILE)  # the plain name is that of version 0.1
    if not isinstance(name, str) or name in ("", "..") or "\0" in name or Path(name).name != name:
        raise ValueError(f"{path}: model: wanted the name of a file, got {name!r}")
    return config
