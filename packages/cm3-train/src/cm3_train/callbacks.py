"""What a run does beside its steps: checkpoints at clean points, signals, a bar with time left.

Lightning's `ModelCheckpoint` saves before a validation that is due at the same step, and skips that
validation on resume; it names absolute paths, and its exception path saves in the middle of a step.
`RunCheckpoints` saves only where the next thing to happen is the next batch.
"""

from __future__ import annotations

import math
import shutil
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint

from cm3_train.kept_checkpoints import KeptCheckpoints, seal
from cm3_train.progress import Progress, progress_bar
from cm3_train.ranks import of_all_ranks


class TrainingInterrupted(SystemExit):
    """A signal stopped the run after it was saved; ends the program with 128 + the signal."""

    def __init__(self, signum: int, step: int) -> None:
        """Carry the signal, and the step after which it was granted."""
        super().__init__(128 + signum)
        self.signum = signum
        self.step = step


class StopSignals(Callback):
    """Turns the first Ctrl-C or SIGTERM into a wish that is granted at the next clean point.

    A second Ctrl-C stops at once, without saving. Lightning puts the earlier handlers back.
    """

    def __init__(self) -> None:
        """Start with no signal received."""
        self.received: int | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the two signals, after Lightning took SIGTERM for itself."""
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, self._receive)

    def agreed(self, trainer: L.Trainer) -> int | None:
        """Return the signal that any rank received; one that left alone would hang the others."""
        if trainer.world_size == 1:
            return self.received
        mine = torch.tensor(self.received or 0, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(mine, reduce_op="max")) or None

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signum


class RunCheckpoints(Checkpoint):
    """Keeps `last.ckpt` (everything) and `best.ckpt` (weights) in a folder, and ends the run.

    Args:
        kept: Where they go, and how many of the last ones stay.
        max_steps: Steps of the run.
        checkpoint_every: Steps between two saves of `last.ckpt`.
        val_every: Steps between two validations.
        monitor: The logged figure by which the best is chosen.
        mode: Whether less or more of it is better.
        signals: Asked at every clean point.
    """

    def __init__(
        self,
        kept: KeptCheckpoints,
        *,
        max_steps: int,
        checkpoint_every: int,
        val_every: int,
        monitor: str,
        mode: Literal["min", "max"],
        signals: StopSignals,
    ) -> None:
        """Keep the arguments."""
        self.kept = kept
        self.max_steps = max_steps
        self.checkpoint_every = checkpoint_every
        self.val_every = val_every
        self.monitor = monitor
        self.mode = mode
        self.signals = signals
        self.step = 0
        self.best_score: float | None = None
        self.best_step: int | None = None
        self._rng: list[dict[str, Any]] | None = None
        self._saved_for: int | None = None
        self._batches_before: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return step, best figure and the state of every rank's generators of torch.

        Lightning saves none of them.
        """
        mine = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        return {
            "step": self.step,
            "best_score": self.best_score,
            "best_step": self.best_step,
            "rng": of_all_ranks(mine),
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Count the batches anew where a step now has another number of them.

        Lightning knows batches alone: with twice as many a step it would think half as many steps
        done.

        Raises:
            ValueError: The loader is finite, and begun anew: its epochs cannot be counted so.
        """
        step = checkpoint["callbacks"][self.state_key]["step"]
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        more = step * trainer.accumulate_grad_batches - progress["total"]["ready"]
        if more:
            if progress["total"] != progress["current"]:
                raise ValueError(
                    f"accumulate: wanted what the run began with, since its loader is finite, "
                    f"got {trainer.accumulate_grad_batches}"
                )
            for counts in (progress["total"], progress["current"]):
                counts.update({name: count + more for name, count in counts.items()})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state; the generators follow when training starts."""
        self.step = state_dict["step"]
        self.best_score = state_dict["best_score"]
        self.best_step = state_dict["best_step"]
        self._rng = state_dict["rng"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the generators as they were, after all else that draws from them at the start."""
        if self._rng is not None and trainer.global_rank < len(self._rng):
            mine = self._rng[trainer.global_rank]
            torch.set_rng_state(mine["cpu"].cpu())
            if len(mine["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in mine["cuda"]])
        self._rng = None
        if trainer.is_global_zero:
            self.kept.settle()
        trainer.should_stop = self.step >= self.max_steps

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Leave if a signal asked for it: the step before is saved and its figures are logged."""
        self._leave_if_asked()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave likewise where no batch follows, so that no later stage of a program starts."""
        self._leave_if_asked()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if it is time, unless a validation is due, which comes first."""
        if (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # in the middle of a step
        self.step = steps_done(trainer)
        if self.step >= self.max_steps:
            trainer.should_stop = True
        validates = self.step % self.val_every == 0 or trainer.should_stop
        if not (trainer.enable_validation and validates):
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse to go through a loader for ever that has no batch; once may be a resume's end."""
        if trainer.fit_loop.total_batch_idx == self._batches_before:
            raise ValueError("train_loader: wanted at least one batch, got none")
        self._batches_before = trainer.fit_loop.total_batch_idx

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the best weights if they are, then everything if it is time."""
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"monitor: wanted one of {sorted(trainer.callback_metrics)}, got {self.monitor!r}"
            )
        score = float(trainer.callback_metrics[self.monitor])
        if self._is_better(score):
            self.best_score, self.best_step = score, self.step
            self._save(trainer, self.kept.folder / "next-best.ckpt", weights_only=True)
            if trainer.is_global_zero:
                self.kept.take_best(self.kept.folder / "next-best.ckpt")
        self._save_last(trainer)

    def _is_better(self, score: float) -> bool:
        if math.isnan(score):
            return False
        if self.best_score is None:
            return True
        return score < self.best_score if self.mode == "min" else score > self.best_score

    def _save_last(self, trainer: L.Trainer) -> None:
        signum = self.signals.agreed(trainer)
        due = self.step % self.checkpoint_every == 0
        if due or trainer.should_stop or signum is not None:
            self._save(trainer, self.kept.next_path, weights_only=False)
            if trainer.is_global_zero:
                self.kept.move_on()
        self._saved_for = signum

    def _save(self, trainer: L.Trainer, path: Path, *, weights_only: bool) -> None:
        """Write a checkpoint whole; a folder is not renamed while a process still writes to it."""
        if trainer.is_global_zero and path.is_dir():
            shutil.rmtree(path)
        trainer.strategy.barrier("before a checkpoint")
        trainer.save_checkpoint(path, weights_only=weights_only)
        if path.is_dir():
            seal(path)
        trainer.strategy.barrier("after a checkpoint")

    def _leave_if_asked(self) -> None:
        if self._saved_for is not None:
            raise TrainingInterrupted(self._saved_for, self.step)


class TimeLeftBar(Callback):
    """One line: what runs, how far, time left, and the figures logged with `prog_bar=True`.

    Args:
        description: Stands at the line's start.
        max_steps: Steps of the run.
        refresh_every: Steps between two looks at the figures.
    """

    def __init__(self, description: str, max_steps: int, refresh_every: int = 10) -> None:
        """Keep the arguments; the bar opens with training."""
        self.description = description
        self.max_steps = max_steps
        self.refresh_every = refresh_every
        self._open = ExitStack()
        self._progress: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar where the run stands."""
        if trainer.is_global_zero:
            bar = progress_bar(self.description, done=steps_done(trainer), leave=True)
            self._progress = self._open.enter_context(bar)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move on."""
        if self._progress is not None:
            step = steps_done(trainer)
            look = step % self.refresh_every == 0
            self._progress(step, self.max_steps, trainer.progress_bar_metrics if look else None)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self._open.close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the message stands on a line of its own."""
        self._open.close()


def steps_done(trainer: L.Trainer) -> int:
    """Return the steps that are complete: a step is a batch, or several that are accumulated.

    Lightning's own count has one for each optimizer, two a batch for a GAN's.
    """
    return (trainer.fit_loop.total_batch_idx + 1) // trainer.accumulate_grad_batches
