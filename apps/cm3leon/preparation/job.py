"""What is prepared, how, and where: the options, and the job that every worker is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from cm3_texttok import PAPER_TASKS, Task
from cm3leon.preparation.source import Shard
from cm3leon.recipe import Recipe

Engine = Literal["local", "ray"]
Fit = Literal["crop", "pad", "stretch"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """The options of `apps/prepare.py` beside the recipe, whatever is prepared."""

    source: Path
    """The folder of raw pairs, or of a task's published files."""
    folder: Path
    """The folder to make."""
    parts: Path | None = None
    """A run whose tokenizers and encoder are taken; None: those that the recipe names."""
    fit: Fit = "crop"
    """How a picture becomes square: its centre, the whole on white, or the whole stretched."""
    licences: tuple[str, ...] | None = None
    """The licences that are let in, whatever their case; None: all."""
    max_bad: float = 0.01
    """Share of the records that may be unusable."""
    engine: Engine = "local"
    """Processes of this machine, or actors of a Ray cluster that sees both folders."""
    workers: int = 1
    """Processes or actors."""
    attempts: int = 3
    """How often to try a shard whose worker died."""
    trust: bool = False
    """Whether the recipe of `parts` may name, and so run, code that is not of our packages."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense, before any work."""
        for name in ("workers", "attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1, got {getattr(self, name)}")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"max_bad: wanted 0% to 100%, got {self.max_bad:.0%}")
        for name, kinds in (("engine", get_args(Engine)), ("fit", get_args(Fit))):
            if getattr(self, name) not in kinds:
                raise ValueError(f"{name}: wanted one of {kinds}, got {getattr(self, name)!r}")

    def lets_in(self, licence: str) -> bool:
        """Tell whether pictures of a licence are wanted."""
        if self.licences is None:
            return True
        return licence.casefold() in {name.strip().casefold() for name in self.licences}


@dataclass(frozen=True, kw_only=True)
class Preparation(Work):
    """Raw pairs to token shards, a memory bank and neighbour tables."""

    near_bits: int = 3
    """Two pictures whose perceptual hashes differ in at most as many of 64 bits are copies."""
    drop_duplicates: bool = False
    """Whether of copies only the first is kept."""
    pictures: int = 256
    """Pictures of each split that are kept as pixels, for the report of a run."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense, before any work."""
        super().__post_init__()
        for name, least in (("pictures", 1), ("near_bits", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: wanted at least {least}, got {getattr(self, name)}")
        if self.near_bits > 15:
            raise ValueError(f"near_bits: wanted at most 15, got {self.near_bits}")


@dataclass(frozen=True, kw_only=True)
class TaskPreparation(Work):
    """Published files to a set of instructions."""

    task: Task
    """What the records are for."""
    images: Path | None = None
    """The pictures lie somewhere below it; None: below `source`."""
    feature_weights: Path | None = None
    """File or folder of the network that makes the task's feature pictures; see
    `cm3leon.instructions.features`."""


@dataclass(frozen=True, kw_only=True)
class FeaturePreparation(Work):
    """Captioned pictures to a set of instructions for each of several features."""

    features: tuple[str, ...]
    """Of `cm3leon.instructions.features.NAMES`; the sets are folders of these names."""
    images: Path | None = None
    """As of `TaskPreparation`."""
    feature_weights: Mapping[str, Path] = field(default_factory=dict)
    """By the feature: as of `TaskPreparation`."""

    def alone(self, name: str) -> TaskPreparation:
        """Return the preparation of one feature's set."""
        both = {f.name: getattr(self, f.name) for f in fields(Work)}
        return TaskPreparation(
            **{**both, "folder": self.folder / name},
            task=PAPER_TASKS[name],
            images=self.images,
            feature_weights=self.feature_weights.get(name),
        )


class Works(Protocol):
    """One process's work on shards."""

    def __init__(self, job: Any) -> None: ...

    def run(self, task: str, number: int, shard: Shard) -> None:
        """Do one task for one shard, which has this number; leaves a sealed folder."""
        ...


@dataclass(frozen=True, kw_only=True)
class AnyJob(ABC):
    """All that a worker is told."""

    recipe: Recipe
    """Its folder is the one that holds the parts."""
    options: Work
    fingerprint: str
    """Of all that decides what is made of a shard; finished shards of another are made anew."""
    trust: bool

    @property
    def work(self) -> Path:
        """Where finished shards wait for the others; it is deleted at the end."""
        return self.options.folder / "work"

    @abstractmethod
    def worker_class(self) -> type[Works]:
        """Return what each process makes of the job once; imported here, for it takes seconds."""


@dataclass(frozen=True, kw_only=True)
class Job(AnyJob):
    """The preparation of raw pairs, in whose folder the parts are."""

    options: Preparation

    def worker_class(self) -> type[Works]:
        """Return the class that encodes shards and finishes them."""
        from cm3leon.preparation.worker import Worker

        return Worker


@dataclass(frozen=True, kw_only=True)
class TaskJob(AnyJob):
    """The preparation of a task."""

    options: TaskPreparation

    def worker_class(self) -> type[Works]:
        """Return the class that encodes ranges of examples."""
        from cm3leon.preparation.example_encoding import TaskWorker

        return TaskWorker


def share_of(text: str) -> float:
    """Return the share that `1%` or `0.01` means."""
    number = text.removesuffix("%")
    try:
        return float(number) / (100 if number != text else 1)
    except ValueError:
        raise ValueError(f"wanted a share such as 1% or 0.01, got {text!r}") from None
