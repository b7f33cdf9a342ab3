"""A Hugging Face `tokenizer.json` as a `Tokenizer`: BPE of the `tokenizers` library (extra `hf`).

The library looks for special tokens in every text that it encodes. Here they are removed from the
model before it is built, with every merge that makes or needs one: no text can produce an id that
the model does not have.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cm3_texttok.arrays import integer_array, ranges, require, utf8
from cm3_texttok.ragged import Ragged, id_dtype
from cm3_texttok.text_file import parse_object

# Texts that lossy settings change: repeated and outer spaces, normalisation, marks of spaces, and
# every byte of UTF-8 (all leading bytes below U+0800, then one character each for E0 to F4).
_PROBES = (
    " a  b ",
    "\ufb01e\u0301\u00c5 A",
    "\u2581 \u0120\u010a",
    "it's \t\n\r\n n't !",
    "".join(map(chr, range(0x800))),
    "".join(chr(max(lead << 12, 0x800)) for lead in range(16)),
    "".join(chr(max(lead << 18, 0x10000)) for lead in range(5)),
)


class HFTokenizer:
    """A lossless tokenizer from the `tokenizer.json` of a byte-level or byte-fallback BPE."""

    def __init__(
        self,
        path: str | Path,
        *,
        pad_id: int,
        eos_id: int,
        break_id: int,
        infill_id: int,
        mask_ids: Sequence[int],
        reserved: Iterable[int] = (),
        image_offset: int | None = None,
    ) -> None:
        """Read the file and remove the ids that no text may produce.

        Args:
            path: A `tokenizer.json`.
            pad_id: The id that fills a batch; see `interface.Tokenizer` for it and the next four.
            eos_id: The id that opens and closes a document.
            break_id: The id at every change of modality.
            infill_id: The id before the spans that were cut out.
            mask_ids: The ids in place of the spans that were cut out.
            reserved: Further ids that no text may produce, such as image ids. The file's added
                tokens are always reserved.
            image_offset: Where image code 0 has its id, if the file leaves room for the codes; kept
                for `Vocabulary.from_tokenizer`.

        Raises:
            ImportError: The `tokenizers` library is not installed.
            FileNotFoundError: There is no such file.
            ValueError: The file is not a `tokenizer.json` of a BPE model, or the model is not
                lossless.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            message = "HFTokenizer needs the tokenizers library: pip install 'cm3-texttok[hf]'"
            raise ImportError(message) from error
        self.pad_id, self.eos_id, self.break_id = pad_id, eos_id, break_id
        self.infill_id, self.mask_ids = infill_id, tuple(mask_ids)
        self.image_offset = image_offset
        settings = _read(Path(path))
        silent = {pad_id, eos_id, break_id, infill_id, *self.mask_ids, *reserved}
        silent |= {token["id"] for token in settings["added_tokens"]}
        if min(silent) < 0:
            raise ValueError(f"structural and reserved ids: wanted at least 0, got {min(silent)}")
        size = 1 + max(*silent, *settings["model"]["vocab"].values())
        try:
            self._tokenizer = Tokenizer.from_str(json.dumps(_text_only(settings, silent)))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{path}: wanted a tokenizer.json, got: {error}") from None
        self._is_text = np.zeros(size, bool)  # (V,)
        self._is_text[list(self._tokenizer.get_vocab().values())] = True
        for probe in _PROBES:
            ids = self.encode(probe)
            if (back := self.decode(ids)) != probe:
                raise ValueError(f"{path}: wanted a lossless BPE, got {back!r} back for {probe!r}")

    @property
    def vocab_size(self) -> int:
        """Number of ids, reserved ones included: one more than the highest id."""
        return self._is_text.size

    @property
    def sha256(self) -> str:
        """Hex digest of the model's settings, pieces and merges among them."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    @property
    def silent_ranges(self) -> tuple[tuple[int, int], ...]:
        """Ranges [start, stop) of the ids that no text has."""
        return ranges(~self._is_text)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, never a structural or reserved one.

        Raises:
            TypeError: `text` is not a str.
            ValueError: `text` holds a lone surrogate.
        """
        utf8(text, "text")
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> Ragged:
        """Return the ids of each text, uint16 where `vocab_size` allows it, else uint32.

        The library takes RAYON_NUM_THREADS threads, by default one per core.

        Raises:
            TypeError: `texts` is a single str, or holds something else.
            ValueError: A text holds a lone surrogate.
        """
        if isinstance(texts, str):
            raise TypeError("texts: wanted a sequence of str, got one str")
        for n, text in enumerate(texts):
            utf8(text, f"texts[{n}]")
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return Ragged.from_rows([row.ids for row in encoded], id_dtype(self.vocab_size))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without structural and reserved ones; U+FFFD for invalid UTF-8.

        Raises:
            ValueError: An id lies outside `[0, vocab_size)`.
        """
        array = integer_array(ids, "ids")
        inside = (array >= 0) & (array < self.vocab_size)
        require(inside, array, "ids", f"an id in [0, {self.vocab_size})")
        text_ids = array[self._is_text[array]].tolist()
        return self._tokenizer.decode(text_ids, skip_special_tokens=False)


def _read(path: Path) -> dict[str, Any]:
    """Read the file's settings and check those that this module uses."""
    settings = parse_object(path.read_bytes(), path)
    model = settings.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise ValueError(f"{path}: wanted a tokenizer.json with a model and its vocab, got neither")
    if (kind := model.get("type", "BPE")) != "BPE":
        raise ValueError(f"{path}: wanted a model of type BPE, got {kind}")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise ValueError(f"{path}: model.{name}: wanted none, got {model[name]!r}")
    settings.setdefault("added_tokens", [])
    return settings


def _text_only(settings: dict[str, Any], silent: set[int]) -> dict[str, Any]:
    """Return the settings of a model without the tokens whose ids are in `silent`."""
    model = settings["model"]
    names = {token for token, id in model["vocab"].items() if id in silent}
    pairs = [m.split(" ", 1) if isinstance(m, str) else m for m in model.get("merges", [])]
    merges = [(a, b) for a, b in pairs if not names & {a, b, a + b}]
    vocab = {token: id for token, id in model["vocab"].items() if token not in names}
    return {
        **settings,
        "added_tokens": [],
        # A template would add special tokens; the other two cut and fill rows.
        "post_processor": None,
        "truncation": None,
        "padding": None,
        "model": {**model, "vocab": vocab, "merges": merges, "unk_token": None},
    }
