"""Checkpoint folders of `torch.distributed.checkpoint`, read without running what they say.

PyTorch unpickles a folder's `.metadata`, and what is no tensor in its parts, so that whoever wrote
the folder could run code here. Here `.metadata` may name only the classes that describe tensors,
and everything else is read as `torch.load(weights_only=True)` reads.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_METADATA = "torch.distributed.checkpoint.metadata"
ALLOWED = {
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),  # where Python 3.13 has them
    ("pathlib._local", "WindowsPath"),
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    (_METADATA, "BytesStorageMetadata"),
    (_METADATA, "ChunkStorageMetadata"),
    (_METADATA, "Metadata"),
    (_METADATA, "MetadataIndex"),
    (_METADATA, "StorageMeta"),
    (_METADATA, "TensorProperties"),
    (_METADATA, "TensorStorageMetadata"),
    (_METADATA, "_MEM_FORMAT_ENCODING"),
}
"""Module and name of what `.metadata` may name, beside PyTorch's dtypes."""
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not dtype and (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"wanted descriptions of tensors, got {module}.{name}")
        return super().find_class(module, name)


def check_metadata(path: Path) -> None:
    """Refuse a `.metadata` that names anything but descriptions of tensors.

    Raises:
        OSError: It cannot be read.
        ValueError: It names other things, or is damaged.
    """
    with open(path, "rb") as file:
        try:
            _Reader(file).load()
        except OSError:
            raise
        except Exception as error:  # a broken pickle raises anything
            raise ValueError(f"{path}: {error}") from None


@contextmanager
def weights_only() -> Iterator[None]:
    """Let `torch.load` read tensors and plain values alone, whoever calls it and however."""
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before
