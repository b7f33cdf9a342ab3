"""Pictures to the feature pictures of structure-guided tasks (4, table 5): edges, depth, poses.

An extractor takes pixels (H, W, 3), uint8, and gives pixels of that shape. Those that learnt from
data read their weights from a local folder or file, never from the network; `WANTED` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path

import numpy as np

Extractor = Callable[[np.ndarray], np.ndarray]

WEIGHTLESS = {
    "canny": "cm3leon.instructions.features.edges:canny",
    "scribble": "cm3leon.instructions.features.edges:scribble",
}
"""Functions from pixels to pixels, as "module:name"."""
LEARNT = {
    "hed": "cm3leon.instructions.features.hed:open_hed",
    "depth": "cm3leon.instructions.features.depth:open_depth",
    "normals": "cm3leon.instructions.features.depth:open_normals",
    "openpose": "cm3leon.instructions.features.pose:open_pose",
    "segmentation": "cm3leon.instructions.features.segmentation:open_segmentation",
}
"""Functions from weights and a device to an extractor."""
WANTED = {
    "hed": "ControlNetHED.pth of the lllyasviel/Annotators repository: hed=FILE",
    "depth": "a folder of transformers' DPT or Depth Anything: depth=FOLDER",
    "normals": "the folder of a depth model, see there: normals=FOLDER",
    "openpose": "a folder with people/, a detector of transformers such as RT-DETR, and pose/, a "
    "ViTPose: openpose=FOLDER",
    "segmentation": "a folder of transformers' SegFormer or UperNet: segmentation=FOLDER",
}
"""Weights of an extractor, and how `--feature-weights` names them."""
NAMES = (*WEIGHTLESS, *LEARNT)


def open_feature(name: str, weights: Path | None = None, device: str = "cpu") -> Extractor:
    """Return the extractor of a name.

    Args:
        name: One of `NAMES`.
        weights: Of those that learnt: the file or folder that `WANTED` describes.
        device: Where a network runs.

    Raises:
        ImportError: transformers is not installed, and this one needs it.
        ValueError: There is no extractor of that name, or its weights are not given, missing,
            damaged or of another kind; says which are wanted.
    """
    if name in WEIGHTLESS:
        return _found(WEIGHTLESS[name])
    if name not in LEARNT:
        raise ValueError(f"feature: wanted one of {', '.join(NAMES)}, got {name!r}")
    if weights is None or not weights.exists():
        missing = "none" if weights is None else f"{weights}, which is not there"
        raise ValueError(f"--feature-weights: wanted {WANTED[name]}; got {missing}")
    try:
        return _found(LEARNT[name])(weights, device)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"--feature-weights: wanted {WANTED[name]}; got {weights}: {reason}"
        ) from error


def features(
    names: Iterable[str], weights: Mapping[str, Path], device: str = "cpu"
) -> tuple[dict[str, Extractor], dict[str, str]]:
    """Open those extractors that can be opened.

    Args:
        names: Of `NAMES`.
        weights: Files and folders by name.
        device: Where networks run.

    Returns:
        The extractors by name, and why the others are left out, by name.
    """
    opened: dict[str, Extractor] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            opened[name] = open_feature(name, weights.get(name), device)
        except (ImportError, ValueError) as error:
            left_out[name] = str(error)
    return opened, left_out


def _found(place: str) -> Callable:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
