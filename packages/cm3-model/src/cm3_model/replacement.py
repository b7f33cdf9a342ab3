"""A checkpoint's files take the place of an earlier one's, all of them or none.

Takes a folder, gives one inside it to write to. When that is complete, a journal with the names of
the new files is written: from then on the new checkpoint counts. Its files are moved into their
places, the earlier checkpoint's other files are removed, and the journal goes last. Whoever reads
the folder first finishes what a stopped writer has begun, so a reader finds the old checkpoint or
the new one, wherever the writer stopped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cm3_model.artifact import write_json

INCOMING = ".incoming"
JOURNAL = ".incoming.json"

# Weights and configs as saved here, by transformers and by Meta; files of other names stay.
_PARTS = re.compile(
    r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?"
    r"|consolidated(\.\d+)?\.pth|config\.json|params\.json|consolidate_params\.json"
)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write a whole checkpoint to; it then replaces the one in `folder`.

    Args:
        folder: The checkpoint's folder; made if missing. Its other files stay.

    Raises:
        OSError: If the files cannot be written or moved.
    """
    new = not folder.exists()
    finish(folder)
    incoming = folder / INCOMING
    shutil.rmtree(incoming, ignore_errors=True)  # of a writer that was stopped
    incoming.mkdir(parents=True)
    try:
        yield incoming
        write_json(folder / JOURNAL, {"files": sorted(path.name for path in incoming.iterdir())})
    finally:
        if not (folder / JOURNAL).exists():  # the write failed
            shutil.rmtree(incoming)
            with suppress(OSError):
                if new:
                    folder.rmdir()
    finish(folder)


def finish(folder: Path) -> None:
    """Finish a replacement that was stopped after its files were complete; else do nothing.

    Raises:
        OSError: If the files cannot be moved.
        ValueError: If the journal is not one of `replacing`, or a file that it names is missing.
    """
    incoming, journal = folder / INCOMING, folder / JOURNAL
    if not journal.is_file():
        return
    try:
        names = list(json.loads(journal.read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{journal}: wanted a JSON list 'files', got another text") from error
    for name in names:
        if not (isinstance(name, str) and _PARTS.fullmatch(name)):
            raise ValueError(f"{journal}: wanted names of a checkpoint's files, got {name!r}")
        if not (incoming / name).exists() and not (folder / name).exists():
            raise ValueError(f"{journal}: wanted {name}, got no such file")
    for name in names:
        if (incoming / name).exists():  # else it was moved before
            os.replace(incoming / name, folder / name)
    for path in list(folder.iterdir()):
        if _PARTS.fullmatch(path.name) and path.name not in names:
            path.unlink()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    journal.unlink()
    shutil.rmtree(incoming, ignore_errors=True)
