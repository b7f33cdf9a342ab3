"""What cm3-train asks of others, and the version that its saved artifacts carry.

The only thing of another package that training touches is the model: it must give its hidden states
and its head apart, so that the loss can pick the positions that count before the head is applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

INTERFACE_VERSION = "1.0"
"""Version of the Protocols and of every artifact saved here; the major part must match on load."""


@runtime_checkable
class TrainableModel(Protocol):
    """A causal language model whose head can be applied to chosen positions only."""

    def hidden(self, input_ids: Tensor) -> Tensor:
        """Map ids (B, T) to the final hidden states (B, T, D); position t sees ids 0..t only."""
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Map hidden states (..., D) to logits (..., V), each position on its own."""
        ...


def stamp(component: str) -> dict[str, str]:
    """Return the two fields by which a saved artifact says what it is."""
    return {"component": component, "interface_version": INTERFACE_VERSION}


def check_stamp(artifact: Mapping[str, Any], component: str, where: object) -> None:
    """Refuse an artifact of another component or of another major version.

    Raises:
        ValueError: names the artifact, what was wanted and what came.
    """
    found = artifact.get("component")
    if found != component:
        raise ValueError(f"{where}: wanted component {component!r}, got {found!r}")
    version = str(artifact.get("interface_version"))
    if version.split(".")[0] != INTERFACE_VERSION.split(".")[0]:
        raise ValueError(
            f"{where}: wanted interface version {INTERFACE_VERSION} (same major), got {version}"
        )
