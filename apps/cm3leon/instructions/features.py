"""Pictures that are made from a picture, such as its edges, for tasks whose input they are.

A task with the field `[feature]`, whose examples bring none, takes what is found here by its name.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Extract = Callable[[np.ndarray], np.ndarray]
"""Takes the fitted pixels (H, W, 3) uint8; gives the feature's, of the same shape and kind."""

EXTRACTORS: dict[str, Extract] = {}
"""By the task's name."""


def extractor_of(task: str) -> Extract:
    """Return what makes a task's feature pictures.

    Raises:
        ValueError: There is nothing of that name.
    """
    if task not in EXTRACTORS:
        raise ValueError(
            f"{task}: wanted feature pictures in the examples, or one of {sorted(EXTRACTORS)} "
            "as the task, got neither"
        )
    return EXTRACTORS[task]
