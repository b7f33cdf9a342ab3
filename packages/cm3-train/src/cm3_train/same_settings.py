"""A resumed run has the settings that it began with.

A checkpoint brings back the optimizer with its rates, so that a rate that was changed in between
would be ignored without a word. The settings stand in the checkpoint, and beside it as
`settings.json`; what a run finds there must be what it was started with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from cm3_train.artifact import check_stamp, stamp, write_json
from cm3_train.checkpoint_io import AtomicCheckpointIO
from cm3_train.interface import INTERFACE_VERSION

COMPONENT = "cm3-train/run-settings"


class SameSettings(Callback):
    """Keeps a run's settings in its checkpoints and its folder; refuses to resume with others.

    A module says what they are by `run_settings`, a mapping of names to plain values. Of any other
    module it is the class of each optimizer and the start values of its parameter groups.

    Args:
        run_dir: The run's folder.
        resume_from: The checkpoint from which the run goes on, None for a new run.
    """

    def __init__(self, run_dir: Path, resume_from: Path | None) -> None:
        """Read the settings that the run began with.

        A checkpoint of an earlier version holds none, but its optimizers' values.
        """
        self.path = run_dir / "settings.json"
        self.began_with: dict[str, Any] | None = None
        self.now: dict[str, Any] | None = None
        self._optimizers_held: dict[str, Any] = {}
        if resume_from is not None and self.path.exists():
            self.began_with = _read(self.path)
        elif resume_from is not None and resume_from.is_file():  # a folder is restored late
            held = AtomicCheckpointIO().load_checkpoint(resume_from)
            if state := held.get("callbacks", {}).get(self.state_key):
                self.began_with = state["settings"]
            else:
                groups = [one.get("param_groups", []) for one in held.get("optimizer_states", [])]
                self._optimizers_held = _plain(_of_groups(groups))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compare what the module declares, before a checkpoint of another shape is loaded."""
        declared = declared_settings(pl_module)
        if declared is not None:
            self._check(self.began_with, _plain(declared))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare the optimizers, before they are restored, and write the settings down."""
        declared, optimizers = declared_settings(pl_module), _plain(_of_optimizers(trainer))
        self.now = optimizers if declared is None else _plain(declared)
        self._check(self.began_with, self.now)
        both = self._optimizers_held.keys() & optimizers.keys()  # torch adds names now and then
        self._check(
            *({n: of[n] for n in of if n in both} for of in (self._optimizers_held, optimizers))
        )
        if trainer.is_global_zero:
            write_json(self.path, {**stamp(COMPONENT, INTERFACE_VERSION), "settings": self.now})

    def state_dict(self) -> dict[str, Any]:
        """Return the settings."""
        return {"settings": self.now}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the checkpoint's own settings, whatever the file beside it says."""
        self.began_with = state_dict["settings"]
        if self.now is not None:  # of a strategy that restores late
            self._check(self.began_with, self.now)

    def _check(self, was: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
        if was is None:
            return
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


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: wanted JSON, got {error}") from None
    return check_stamp(content, COMPONENT, INTERFACE_VERSION, path)["settings"]


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they are read back from JSON: tuples are lists."""
    return json.loads(json.dumps(dict(settings)))


def _of_optimizers(trainer: L.Trainer) -> dict[str, Any]:
    """Return class and plain start values of each optimizer's groups."""
    names = {f"optimizer {n}": type(one).__name__ for n, one in enumerate(trainer.optimizers)}
    return names | _of_groups(one.param_groups for one in trainer.optimizers)


def _of_groups(optimizers: Iterable[list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the plain start values of each optimizer's groups.

    Groups that differ in their parameters alone count once: how many there are depends on how the
    model is split over processes.
    """
    found: dict[str, Any] = {}
    for place, of_optimizer in enumerate(optimizers):
        groups: list[dict[str, Any]] = []
        for group in of_optimizer:
            values = {n: value for n, value in group.items() if n != "params" and _is_plain(value)}
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
