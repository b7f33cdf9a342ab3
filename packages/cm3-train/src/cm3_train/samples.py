"""What the model makes at a validation, for the eye: a callable draws, TensorBoard shows.

Whatever it draws from torch's, NumPy's and Python's generators, they are as before afterwards, so
that training goes on as if nothing had been drawn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from cm3_train.callbacks import steps_done


class Shown(NamedTuple):
    """What was made."""

    picture: np.ndarray
    """(H, W, 3) uint8."""
    text: str
    """Such as captions of pictures, in Markdown."""


Draw = Callable[[nn.Module, int], Shown]
"""`(model, step) -> Shown`; the model is in evaluation mode. It may write files."""


class Samples(Callback):
    """Draws after every `every`-th validation, in the first process, with the averaged weights.

    Args:
        draw: Makes the picture.
        every: Validations from one to the next.
    """

    def __init__(self, draw: Draw, every: int = 1) -> None:
        """Check and keep the arguments."""
        if every < 1:
            raise ValueError(f"every: wanted at least 1, got {every}")
        self.draw = draw
        self.every = every

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw if it is time: a resumed run does at the steps of an unbroken one."""
        step = steps_done(trainer)
        between = int(trainer.val_check_interval) // trainer.accumulate_grad_batches * self.every
        due = step % between == 0 or trainer.should_stop  # the last step is always validated
        if not (due and trainer.is_global_zero):
            return
        model = getattr(pl_module, "kept_model", pl_module)
        training = model.training
        with generators_kept(), torch.no_grad():
            model.eval()
            try:
                shown = self.draw(model, step)
            finally:
                model.train(training)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", shown.picture, step, dataformats="HWC")
                logger.experiment.add_text("samples", shown.text, step)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put the global generators of torch, NumPy and Python back at the end."""
    numpys, pythons = np.random.get_state(), random.getstate()
    try:
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            yield
    finally:
        np.random.set_state(numpys)
        random.setstate(pythons)
