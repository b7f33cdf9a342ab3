"""Tasks of one's own: YAML with `name`, `templates` and `outputs`, as of `cm3_texttok.Task`."""

from __future__ import annotations

from pathlib import Path

import yaml

from cm3_retrieval.picture_file import shown
from cm3_texttok import Task

KEYS = ("name", "templates", "outputs")


def read_task_file(path: Path) -> Task:
    """Return the task of a file.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is no task; names the file.
    """
    wanted = f"{shown(path)}: wanted the keys {', '.join(KEYS)} of a task"
    try:
        found = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{wanted}, got no YAML: {error}") from None
    if not isinstance(found, dict) or not {"name", "templates"} <= set(found) <= set(KEYS):
        raise ValueError(f"{wanted}, got {found!r}")
    texts = {name: found[name] for name in ("templates", "outputs") if name in found}
    if not all(isinstance(v, list) and all(isinstance(x, str) for x in v) for v in texts.values()):
        raise ValueError(f"{wanted}, lists of texts, got {texts!r}")
    try:
        return Task(name=str(found["name"]), **{name: tuple(v) for name, v in texts.items()})
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from None
