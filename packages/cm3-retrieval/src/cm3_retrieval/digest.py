"""One SHA-256 over the inputs of a job, which tells whether a finished step is still valid."""

import hashlib
import json
from typing import Any

import numpy as np


def digest_of(*values: Any) -> str:
    """Return the SHA-256 over arrays (shape, type, bytes) and JSON values, in order."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype} {value.shape} ".encode())
            digest.update(np.ascontiguousarray(value).view(np.uint8).data)
        else:
            digest.update(json.dumps(value, sort_keys=True).encode())
        digest.update(b"\n")
    return digest.hexdigest()
