"""A resumed run has the settings that it began with.

A checkpoint brings back the optimizer with its rates, so that a rate that was changed in between
would be ignored without a word. The settings stand beside the checkpoint as `settings.json`; what a
run finds there must be what it was started with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from cm3_train.artifact import check_stamp, stamp, write_json
from cm3_train.interface import INTERFACE_VERSION

COMPONENT = "cm3-train/run-settings"


class SameSettings(Callback):
    """Writes down a run's settings at its start, and refuses to resume with others.

    A module says what they are by `run_settings`, a mapping of names to plain values. Of any other
    module it is the class of each optimizer and the start values of its parameter groups.

    Args:
        run_dir: The run's folder.
        resumes: Whether the run goes on from a checkpoint there.
    """

    def __init__(self, run_dir: Path, *, resumes: bool) -> None:
        """Read the settings that the run began with; runs of earlier versions have none."""
        self.path = run_dir / "settings.json"
        self.began_with: dict[str, Any] | None = None
        if resumes and self.path.exists():
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{self.path}: wanted JSON, got {error}") from None
            found = check_stamp(content, COMPONENT, INTERFACE_VERSION, self.path)
            self.began_with = found["settings"]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compare what the module declares, before a checkpoint of another shape is loaded."""
        declared = declared_settings(pl_module)
        if declared is not None:
            self._check(declared, trainer)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare the optimizers of a module that declares nothing, before they are restored."""
        if declared_settings(pl_module) is None:
            self._check(_of_optimizers(trainer), trainer)

    def _check(self, settings: Mapping[str, Any], trainer: L.Trainer) -> None:
        now = json.loads(json.dumps(dict(settings)))  # as they are read back: tuples are lists
        if self.began_with is None:
            if trainer.is_global_zero:
                written = {**stamp(COMPONENT, INTERFACE_VERSION), "settings": now}
                write_json(self.path, written)
            return
        was = self.began_with
        changed = [
            f"{name} {was.get(name, 'unset')} (now {now.get(name, 'unset')})"
            for name in {**was, **now}
            if was.get(name) != now.get(name)
        ]
        if changed:
            raise ValueError(
                f"{self.path.parent}: wanted the settings that this run began with, "
                f"{', '.join(changed)}; put them back, or start a new run folder"
            )


def declared_settings(module: L.LightningModule) -> Mapping[str, Any] | None:
    """Return what a module declares as its settings, None if it declares nothing."""
    return getattr(module, "run_settings", None)


def _of_optimizers(trainer: L.Trainer) -> dict[str, Any]:
    """Return class and plain start values of each optimizer's groups.

    Groups that differ in their parameters alone count once: how many there are depends on how the
    model is split over processes.
    """
    found: dict[str, Any] = {}
    for place, optimizer in enumerate(trainer.optimizers):
        found[f"optimizer {place}"] = type(optimizer).__name__
        groups: list[dict[str, Any]] = []
        for group in optimizer.param_groups:
            values = {name: value for name, value in group.items() if _is_plain(value)}
            values["lr"] = float(values.pop("initial_lr", group["lr"]))  # before its schedule
            if values not in groups:
                groups.append(values)
        for number, values in enumerate(groups):
            for name, value in values.items():
                found[f"optimizer {place}, group {number}, {name}"] = value
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(one, int | float) for one in value)
    return value is None or isinstance(value, bool | int | float | str)
