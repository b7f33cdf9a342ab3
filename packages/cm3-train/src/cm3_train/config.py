"""The settings of an optimizer and its schedule, see `optim`, and of adapters, see `lora`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cm3_train.cm3 import CM3Config


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the weights move. Steps are optimizer steps."""

    name: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    """`adamw` for everything; `adamw8bit`, the same with moments of 8 bits (arXiv 2110.02861), for
    which torchao is needed, `pip install "cm3-train[adamw8bit]"`; or `muon` for the hidden matrices
    and AdamW for the rest."""
    lr: float = 6e-4
    """Peak learning rate of AdamW."""
    muon_lr: float = 0.02
    """Peak learning rate of Muon; unused by the others."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the two moments."""
    weight_decay: float = 0.1
    """Decoupled decay, on matrices only."""
    warmup_steps: int = 0
    """Steps over which the rate grows linearly from 0 to its peak."""
    total_steps: int = 1000
    """Steps of the whole run; the schedule ends here."""
    schedule: Literal["cosine", "linear", "polynomial", "constant"] = "cosine"
    """How the rate falls after the warm-up. "polynomial" is fairseq's and OPT's; with `power` 1, as
    there, it is "linear"."""
    power: float = 1.0
    """Exponent of what is left of the run; of `polynomial` alone."""
    final_lr_share: float = 0.1
    """Share of the peak that is left at the end; unused by `constant`."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    ema_decay: float = 0.0
    """Decay of the averaged weights that validation and export use; 0 keeps none."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        names = ("adamw", "adamw8bit", "muon")
        _require(self.name in names, "name", "adamw, adamw8bit or muon", self.name)
        _require(
            self.schedule in ("cosine", "linear", "polynomial", "constant"),
            "schedule",
            "cosine, linear, polynomial or constant",
            self.schedule,
        )
        for name in ("lr", "muon_lr", "power"):
            _require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        for name in ("weight_decay", "warmup_steps", "grad_clip"):
            _require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        _require(all(0 <= b < 1 for b in self.betas), "betas", "two in [0, 1)", self.betas)
        _require(0 <= self.ema_decay < 1, "ema_decay", "in [0, 1)", self.ema_decay)
        _require(0 <= self.final_lr_share <= 1, "final_lr_share", "0..1", self.final_lr_share)
        _require(
            self.total_steps > self.warmup_steps,
            "total_steps",
            f"above warmup_steps = {self.warmup_steps}",
            self.total_steps,
        )

    def in_effect(self) -> dict[str, Any]:
        """Return the settings that change how a run goes, as plain values by name."""
        unused = [] if self.name == "muon" else ["muon_lr"]
        if self.schedule == "constant":
            unused += ["total_steps", "final_lr_share"]
        if self.schedule != "polynomial":
            unused.append("power")
        return {name: value for name, value in asdict(self).items() if name not in unused}


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters beside frozen weights (LoRA, arXiv 2106.09685)."""

    rank: int = 16
    """Rows of an adapter's first matrix, columns of its second."""
    alpha: float = 32.0
    """What an adapter adds is multiplied by `alpha / rank`."""
    targets: tuple[str, ...] = ("qkv", "out", "up", "down")
    """Linear layers that get one, by the last part of their names; the default are those of the
    blocks of `cm3_model.Decoder`."""
    bfloat16_base: bool = False
    """Keep all that is frozen in bfloat16: half the memory of float32."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require(self.rank >= 1, "rank", "at least 1", self.rank)
        _require(self.alpha > 0, "alpha", "above 0", self.alpha)
        _require(len(self.targets) > 0, "targets", "names of linear layers", self.targets)


@dataclass(frozen=True, kw_only=True)
class InstructionConfig:
    """What is cut out of an instruction, and what is learnt of it."""

    cut_output: float = 0.8
    """Chance that an output which something follows, such as an answer before its picture, is cut
    out and learnt behind `<infill>`."""
    drop_text: float = 0.05
    """Chance that an instruction whose output comes last lacks its texts. InstructPix2Pix
    (arXiv 2211.09800, section 3.2.1) drops text, picture and both in 5 % each."""
    drop_pictures: float = 0.05
    """Chance that it lacks its pictures."""
    drop_both: float = 0.05
    """Chance that it lacks both."""
    cm3: CM3Config = field(
        default_factory=lambda: CM3Config(mask_probability=0.3, whole_text_probability=0.0)
    )
    """The objective where none of these is drawn. Regions and weights are a pair's alone."""
    score: Literal["all", "output"] = "all"
    """Whether every token counts, as the paper's objective says, or the output's alone."""
    text_weight: float = 1.0
    """What a token of an output counts that something follows, such as an answer: of a few tokens,
    beside pictures of many codes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("cut_output", "drop_text", "drop_pictures", "drop_both"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: wanted 0..1, got {getattr(self, name)}")
        dropped = self.drop_text + self.drop_pictures + self.drop_both
        if dropped > 1:
            raise ValueError(
                f"drop_text + drop_pictures + drop_both: wanted at most 1, got {dropped}"
            )
        for name, value in (
            ("region_probability", 0), ("score_masks", True), ("retrieved_weight", 1),
        ):  # fmt: skip
            if getattr(self.cm3, name) != value:
                raise ValueError(
                    f"cm3.{name}: wanted {value} for instructions, got {getattr(self.cm3, name)}"
                )
        if self.score not in ("all", "output"):
            raise ValueError(f"score: wanted all or output, got {self.score!r}")
        if not 0 < self.text_weight < math.inf:
            raise ValueError(f"text_weight: wanted above 0, got {self.text_weight}")


def _require(condition: bool, name: str, wanted: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{name}: wanted {wanted}, got {got}")
