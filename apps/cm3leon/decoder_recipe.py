"""The language model of a run, its sequences and its training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from cm3_model import PRESETS, DecoderConfig
from cm3_train import CM3Config, OptimConfig

Checkpointing = Literal["none", "selective", "full"]


@dataclass(frozen=True, kw_only=True)
class DecoderRecipe:
    """The language model and its training."""

    model: str | dict[str, Any] = "cm3leon-350m"
    """Shape: a name of `cm3_model.PRESETS`, or fields of `cm3_model.DecoderConfig`. The
    number of ids, and which are codes, is the tokenizers'."""
    max_length: int = 4096
    """Most ids of a sequence."""
    context_shares: tuple[float, ...] = (0.0, 0.0, 1.0)
    """How often 0, 1, 2, ... retrieved documents stand before a training pair."""
    views: int = 1
    """Encodings of each training picture: the first as it is, the others mirrored, turned and
    moved, each in one way for all pictures. Their captions say so ("fox #3"), so that a plain
    caption asks for a plain picture."""
    plain_share: float = 0.5
    """How often the first encoding is trained on, where there are several."""
    cm3: CM3Config = field(default_factory=CM3Config)
    """The objective, paper 2.2."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer, schedule and steps."""
    init_from: Path | None = None
    """A folder of weights to start from instead of new ones, such as another run's
    `decoder/model`: as `cm3_model.save_decoder` writes it."""
    batch_size: int = 32
    """Sequences a step, or rows where they are packed, shared by all processes; with
    `tokens_per_step` those of one process at a time."""
    tokens_per_step: int | None = None
    """Positions of a step (the paper's batch: 8M): each process adds up the gradients of as many
    batches as that takes. null: a step is one batch."""
    val_batch_size: int = 64
    """Held-out sequences of one process at a time."""
    compile: bool = False
    """Compile the blocks: pays on a GPU, or in a long run; costs minutes at the start."""
    activation_checkpointing: Checkpointing = "none"
    """What backward finds of a block: all it needs ("none"), of its MLP the input alone
    ("selective"), of the whole block the input alone ("full"). The rest is computed again."""
    packed_length: int | None = None
    """Positions of a row that whole sequences are packed into, each seeing itself alone; null pads
    every sequence to the longest. For a GPU: elsewhere the mask of a row is laid out in memory."""
    val_every: int = 100
    """Steps between two validations; the best checkpoint counts."""
    sample_every: int = 0
    """Validations between two sheets of drawings and captions, `decoder/samples/step-000500.png`;
    0 draws none. Not with `trainer.strategy` "fsdp2"."""
    sample_count: int = 4
    """Held-out captions on a sheet."""

    def __post_init__(self) -> None:
        """Refuse what is no decoder, before any work."""
        if not 0 <= self.plain_share <= 1:
            raise ValueError(f"decoder.plain_share: wanted 0..1, got {self.plain_share}")
        shares = self.context_shares
        if not shares or not all(0 <= share < math.inf for share in shares) or not sum(shares):
            raise ValueError(
                f"decoder.context_shares: wanted shares of at least 0, one above it, got {shares}"
            )
        if self.packed_length is not None and self.packed_length < self.max_length - 1:
            raise ValueError(
                f"decoder.packed_length: wanted at least max_length - 1 = {self.max_length - 1}, "
                f"got {self.packed_length}"
            )
        self.config(2, (1, 2))

    def accumulate(self, ranks: int) -> int:
        """Return the batches of a step in each of `ranks` processes that have their own.

        Raises:
            ValueError: The batch does not divide.
        """
        if self.tokens_per_step is None:
            if self.batch_size % ranks:
                raise ValueError(
                    f"decoder.batch_size: wanted a multiple of {ranks} processes, "
                    f"got {self.batch_size}"
                )
            return 1
        length = self.max_length if self.packed_length is None else self.packed_length
        at_once = self.batch_size * length * ranks
        if self.tokens_per_step < 1 or self.tokens_per_step % at_once:
            raise ValueError(
                f"decoder.tokens_per_step: wanted a multiple of {at_once} = batch_size "
                f"{self.batch_size} x {length} positions x {ranks} processes, "
                f"got {self.tokens_per_step}"
            )
        return self.tokens_per_step // at_once

    def config(self, vocab_size: int, image_ids: tuple[int, int]) -> DecoderConfig:
        """Return the decoder's shape for a number of ids, of which `first <= id < stop` are codes.

        Raises:
            ValueError: There is no preset of the name, or the fields make no decoder.
        """
        ids: dict[str, Any] = {"vocab_size": vocab_size, "max_length": self.max_length}
        if isinstance(self.model, str):
            if self.model not in PRESETS:
                raise ValueError(
                    f"decoder.model: wanted one of {list(PRESETS)}, got {self.model!r}"
                )
            return replace(PRESETS[self.model], **ids)
        mine = {field.name for field in fields(DecoderConfig)} - ids.keys() - {"image_ids"}
        for name in self.model.keys() - mine:
            raise ValueError(f"decoder.model: wanted some of {sorted(mine)}, got {name!r}")
        if self.model.get("positions") == "rotary-places":
            ids["image_ids"] = image_ids
        try:
            return DecoderConfig(**ids, **self.model)
        except (TypeError, ValueError) as error:
            raise ValueError(f"decoder.model: {error}") from None
