"""`fit`: a Lightning run that can be killed anywhere and goes on bit for bit.

Takes any LightningModule and loaders; gives the path of the best checkpoint. In the run's folder:
`last.ckpt` and `last-1.ckpt`, `best.ckpt`, `settings.json`, `csv/` and `tensorboard/`.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch.distributed.checkpoint as dcp
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.strategies import Strategy

from cm3_train.callbacks import RunCheckpoints, StopSignals, TimeLeftBar, TrainingInterrupted
from cm3_train.checkpoint_io import AtomicCheckpointIO
from cm3_train.finite import FiniteCheck
from cm3_train.foreign_pickles import weights_only
from cm3_train.kept_checkpoints import KeptCheckpoints, check_whole
from cm3_train.run_loaders import BothLoaders, Loader, TrainLoader
from cm3_train.same_settings import SameSettings, declared_settings
from cm3_train.step_guard import BadSteps, StepGuard

_ENDLESS = 2**40
"""Batches of a Lightning epoch: with a length, Lightning does not fetch a batch ahead, so that the
loader's state is that of the batches trained on."""


def fit(
    module: L.LightningModule,
    train_loader: Loader,
    val_loader: Loader | None,
    *,
    run_dir: str | Path,
    max_steps: int,
    val_every: int,
    checkpoint_every: int,
    keep_last: int = 2,
    precision: Any = "32-true",
    grad_clip: float | None = None,
    monitor: str = "val/loss",
    mode: Literal["min", "max"] = "min",
    description: str = "training",
    log_every: int = 10,
    accelerator: str = "auto",
    devices: int | list[int] = 1,
    num_nodes: int = 1,
    strategy: str | Strategy = "auto",
    plugins: Iterable[Any] = (),
    accumulate: int = 1,
    bad_steps: BadSteps = "stop",
    spike_factor: float | None = None,
    most_skips: int = 10,
    loggers: Iterable[Logger] = (),
    callbacks: Iterable[Callback] = (),
) -> Path:
    """Train for `max_steps` steps, from the newest whole checkpoint in `run_dir` on.

    That is `last.ckpt`; if it is broken, which stderr says, `last-1.ckpt`, the one before it.
    The resumed run ends bit for bit as an unbroken one if the loader has `state_dict` and
    `load_state_dict` (as `BatchLoader`) and the module draws only from torch's generators.
    Ctrl-C and SIGTERM end the step that runs (and the validation due after it), save and leave by
    `TrainingInterrupted`, exit status 130 and 143. The last step is always validated.

    A step is one batch, or `accumulate` of them, on every process. Several processes need loaders
    that know their rank, so give callables `(rank, world_size) -> loader`: they are called in each
    process, after Lightning has started it. Processes that share a batch (tensor parallelism) have
    the same rank.

    What a module declares as `run_settings`, a mapping of plain values, must be the same when the
    run is resumed; `CM3Module` declares its optimizer's config. Of a module that declares nothing,
    the optimizers' classes and rates must be.

    Args:
        module: What to train.
        train_loader: Batches; a finite loader is gone through again and again. No plain list, which
            Lightning takes for a list of loaders.
        val_loader: Batches of the validation set, or None.
        run_dir: Folder of this run.
        max_steps: Steps of the whole run, however often it was resumed. If `run_settings` has
            `total_steps`, where the schedule ends, it is the same number.
        val_every: Steps between two validations.
        checkpoint_every: Steps between two saves.
        keep_last: Checkpoints that stay: `last.ckpt`, `last-1.ckpt`, ...
        precision: As Lightning's Trainer takes it, "32-true" or "bf16-mixed".
        grad_clip: Largest gradient norm; None leaves it to the module. Not for manual optimisation.
        monitor: The logged figure that picks the best checkpoint.
        mode: Whether "min" or "max" of it is best.
        description: Stands before the progress bar.
        log_every: Steps between two rows of the logs.
        accelerator: As Lightning's Trainer takes it.
        devices: Likewise.
        num_nodes: Likewise.
        strategy: Likewise; "ddp" for several processes.
        plugins: Further ones of Lightning's, such as a cluster's environment.
        accumulate: Batches whose gradients make one step. Not for manual optimisation.
        bad_steps: What to do when a step's gradient is NaN, infinite or a spike: "stop", or "skip"
            it, with a line on stderr and one in `run_dir/skipped.jsonl` that name its keys. Of a
            `CM3Module`; not in "16-mixed", whose scaler skips steps of its own.
        spike_factor: A gradient's norm above this many times the median of the last 100 is a spike;
            None calls nothing one.
        most_skips: Skipped steps in a row that end the run.
        loggers: Lightning's, beside those of CSV and TensorBoard.
        callbacks: Further ones.

    Returns:
        `best.ckpt`, or `last.ckpt` where there was no validation to choose by.

    Raises:
        FloatingPointError: A loss, or the weights or buffers after a step, are NaN or infinite, or
            `bad_steps` and `spike_factor` say to stop; names the step, and the keys where the batch
            has `keys`. The checkpoints are from before.
        ValueError: An argument is out of its range, a loader has no batch, the settings are not
            those of the run that is resumed, or all its checkpoints are damaged.
        TrainingInterrupted: A signal stopped the run; it is saved.
    """
    for name, value in (
        ("max_steps", max_steps),
        ("val_every", val_every),
        ("checkpoint_every", checkpoint_every),
        ("keep_last", keep_last),
        ("accumulate", accumulate),
    ):
        if value < 1:
            raise ValueError(f"{name}: wanted at least 1, got {value}")
    total = (declared_settings(module) or {}).get("total_steps", max_steps)
    if total != max_steps:
        raise ValueError(
            f"max_steps: wanted total_steps = {total}, where the schedule ends, got {max_steps}"
        )
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    signals = StopSignals()
    kept = KeptCheckpoints(run_dir, keep_last)
    checkpoints = RunCheckpoints(
        kept,
        max_steps=max_steps,
        checkpoint_every=checkpoint_every,
        val_every=val_every,
        monitor=monitor,
        mode=mode,
        signals=signals,
    )
    resume_from = kept.newest_whole()
    with _quiet(), ExitStack() as restoring:
        if resume_from is not None and resume_from.is_dir():
            restoring.enter_context(weights_only())
        trainer = L.Trainer(
            max_epochs=-1,
            limit_train_batches=_ENDLESS,
            val_check_interval=val_every * accumulate,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            precision=precision,
            gradient_clip_val=grad_clip,
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=strategy,
            accumulate_grad_batches=accumulate,
            use_distributed_sampler=False,  # loaders know their rank
            plugins=[AtomicCheckpointIO(), *plugins],
            logger=[
                CSVLogger(run_dir, name="csv", flush_logs_every_n_steps=1),
                TensorBoardLogger(run_dir, name="tensorboard", version=""),
                *loggers,
            ],
            log_every_n_steps=log_every,
            callbacks=[
                _Restored(restoring),
                signals,
                SameSettings(run_dir, resume_from),
                FiniteCheck(kept.last_path, losses=bad_steps == "stop"),
                StepGuard(bad_steps, spike_factor, most_skips, run_dir / "skipped.jsonl"),
                checkpoints,
                TimeLeftBar(description, max_steps),
                *callbacks,
            ],
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=run_dir,
        )
        try:
            loaders = TrainLoader(train_loader)
            if val_loader is not None:
                loaders = BothLoaders(train_loader, val_loader)
            trainer.fit(module, datamodule=loaders, ckpt_path=resume_from)
        except TrainingInterrupted as stop:
            print(
                f"{description}: stopped by signal {stop.signum} after step {stop.step} of "
                f"{max_steps}, saved in {kept.last_path}; the same command goes on.",
                file=sys.stderr,
            )
            raise
    return kept.last_path if checkpoints.best_step is None else kept.best_path


def load_weights(module: L.LightningModule, path: str | Path) -> None:
    """Put the weights of a checkpoint that `fit` wrote into `module`, checked.

    One that several processes wrote in parts goes into a module that is whole, in one process.

    Raises:
        ValueError: The file is damaged or no checkpoint of ours, or the module's frozen weights are
            others than those that the run began with.
        RuntimeError: Names every key that is missing, left over or of another shape.
    """
    path = Path(path)
    if path.is_dir():
        check_whole(path)
        state = {"state_dict": module.state_dict()}
        with warnings.catch_warnings():  # it tells that one process loads, which is what we want
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            with weights_only():
                dcp.load(state, checkpoint_id=path, no_dist=True)
        module.load_state_dict(state["state_dict"])
        return
    checkpoint = AtomicCheckpointIO().load_checkpoint(path)
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])


class _Restored(Callback):
    """Ends what holds while a checkpoint is read."""

    def __init__(self, restoring: ExitStack) -> None:
        self.restoring = restoring

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.restoring.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back Lightning's advice while the run lasts; its warnings about real trouble stay."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning 2.6 builds a class that newer torch calls outdated.
            warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
