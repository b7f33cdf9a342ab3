"""Networks of the transformers library, from local folders in its layout.

Weights are safetensors; nothing is unpickled, no code of a folder runs, and nothing is fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

LOCAL = {"local_files_only": True, "trust_remote_code": False}


def open_model(kind: str, folder: Path, device: str) -> tuple[Any, Any]:
    """Return image processor and model, in eval mode.

    Args:
        kind: Auto class of transformers, such as "AutoModelForDepthEstimation".
        folder: With `config.json`, `preprocessor_config.json` and `model.safetensors`.
        device: Where the model goes.

    Raises:
        ImportError: transformers is not installed.
        OSError, ValueError: The folder is not what it should be.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError('this needs transformers: pip install "cm3leon[features]"') from error
    processor = transformers.AutoImageProcessor.from_pretrained(folder, **LOCAL)
    auto = getattr(transformers, kind)
    model, found = auto.from_pretrained(
        folder, use_safetensors=True, output_loading_info=True, **LOCAL
    )
    if missing := sorted(found["missing_keys"]):  # transformers would draw them at random
        raise ValueError(f"weights: wanted {missing[0]} among them, got none")
    return processor, model.to(device).eval().requires_grad_(False)


def inputs_of(processor: Any, pixels: np.ndarray, device: str, **options: Any) -> Any:
    """Return a model's inputs for one picture (H, W, 3)."""
    return processor(images=pixels, return_tensors="pt", **options).to(torch.device(device))
