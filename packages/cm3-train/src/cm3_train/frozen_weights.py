"""Checkpoints without the weights that are never trained.

Adapters of a 7B are some hundred megabytes, the weights beside them 13 GB in bfloat16. Those come
from where the run took them; a checkpoint holds their SHA-256, so that no others take their place.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

KEY = "frozen_weights_sha256"
"""Where a checkpoint has the hash."""


class FrozenWeights:
    """The parameters of a model that were frozen when this was made.

    Args:
        model: What will be trained; it may be moved later.
    """

    def __init__(self, model: nn.Module) -> None:
        """Remember them."""
        self._named = {name: p for name, p in model.named_parameters() if not p.requires_grad}
        self._sha256: str | None = None

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._named)

    def leave_out(self, module: nn.Module, checkpoint: dict[str, Any]) -> None:
        """Take them out of a checkpoint of `module`, which holds the model, and add the hash."""
        if not self._named:
            return
        for name in self._names_in(module):
            del checkpoint["state_dict"][name]
        checkpoint[KEY] = self.sha256

    def put_back(self, module: nn.Module, checkpoint: dict[str, Any]) -> None:
        """Put them into a checkpoint that `leave_out` has changed.

        Raises:
            ValueError: The checkpoint was written beside others.
        """
        if not self._named:
            return
        if checkpoint.get(KEY) != self.sha256:
            raise ValueError(
                f"frozen weights: wanted those that the run began with, {_short(checkpoint)}, "
                f"got others, {self.sha256[:12]}"
            )
        for name, parameter in self._names_in(module).items():
            checkpoint["state_dict"][name] = parameter.detach()

    @property
    def sha256(self) -> str:
        """Hash of names, types, shapes and numbers; computed once."""
        if self._sha256 is None:
            digest = hashlib.sha256()
            for name, parameter in sorted(self._named.items()):
                digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
                numbers = parameter.detach().cpu().contiguous().flatten()
                digest.update(numbers.view(torch.uint8).numpy().data)
            self._sha256 = digest.hexdigest()
        return self._sha256

    def _names_in(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """Return them by all names that they have in `module`, averaged copies' included."""
        mine = {id(parameter) for parameter in self._named.values()}
        named = module.named_parameters(remove_duplicate=False)
        return {name: parameter for name, parameter in named if id(parameter) in mine}


def _short(checkpoint: dict[str, Any]) -> str:
    return str(checkpoint.get(KEY, "none"))[:12]
