"""What a stage's configuration hashes to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any


def fingerprint_of(*parts: Any) -> str:
    """Return the SHA-256 of dataclasses, mappings, sequences and plain values.

    A field at its default counts as absent, so that a new knob leaves old runs valid.
    """
    return hashlib.sha256(json.dumps(_plain(parts), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        changed = {
            f.name: getattr(value, f.name) for f in fields(value) if not _is_default(value, f)
        }
        return {name: _plain(content) for name, content in changed.items()}
    if isinstance(value, dict):
        return {str(name): _plain(content) for name, content in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(content) for content in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"wanted plain values in a configuration, got {type(value).__name__}")


def _is_default(config: Any, field: Field[Any]) -> bool:
    if field.default is not MISSING:
        default = field.default
    elif field.default_factory is not MISSING:
        default = field.default_factory()
    else:
        return False
    return getattr(config, field.name) == default
