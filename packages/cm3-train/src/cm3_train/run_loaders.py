"""The loaders of a run, made in each process once it knows its rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any

import lightning as L

Loader = Iterable[Any] | Callable[[int, int], Iterable[Any]]
"""A loader, or `(rank, world_size) -> loader`."""


class TrainLoader(L.LightningDataModule):
    """A loader that is made once a process knows its rank."""

    def __init__(self, train: Loader) -> None:
        """Keep the loader; nothing is made yet."""
        super().__init__()
        self.train = train

    def train_dataloader(self) -> Any:
        """Make the training loader."""
        loader = self._made(self.train, "train_loader")
        assert self.trainer is not None  # Lightning sets it
        accumulate = self.trainer.accumulate_grad_batches
        if (
            isinstance(loader, Sized) and len(loader) % accumulate
        ):  # Lightning would step at its end
            raise ValueError(
                f"train_loader: wanted a number of batches that accumulate = {accumulate} divides, "
                f"got {len(loader)}"
            )
        return loader

    def _made(self, loader: Loader, name: str) -> Iterable[Any]:
        assert self.trainer is not None  # Lightning sets it
        if callable(loader):
            place = getattr(self.trainer.strategy, "distributed_sampler_kwargs", None)
            loader = loader(*((place["rank"], place["num_replicas"]) if place else (0, 1)))
        elif self.trainer.world_size > 1:
            raise ValueError(
                f"{name}: wanted a callable (rank, world_size) -> loader for "
                f"{self.trainer.world_size} processes, got a {type(loader).__name__}"
            )
        # without a batch Lightning would train, or validate, nothing and say nothing
        if isinstance(loader, Sized) and len(loader) == 0:
            raise ValueError(f"{name}: wanted at least one batch, got none")
        return loader


class BothLoaders(TrainLoader):
    """The same with validation; Lightning tells by the method whether there is any."""

    def __init__(self, train: Loader, validation: Loader) -> None:
        """Keep the loaders; nothing is made yet."""
        super().__init__(train)
        self.validation = validation

    def val_dataloader(self) -> Any:
        """Make the validation loader."""
        return self._made(self.validation, "val_loader")
