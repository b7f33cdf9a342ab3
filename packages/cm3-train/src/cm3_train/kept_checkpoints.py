"""The last checkpoints of a run, the newest first: `last.ckpt`, `last-1.ckpt`, `last-2.ckpt`, ...

A new one is written whole as `next.ckpt`. Only then does each move on by one name, the oldest
first, so that a kill at any moment leaves a whole one. A checkpoint is a file that carries its hash
(`checkpoint_io`), or, where a model is split over processes, a folder with a part of each. The
folder's `manifest.json`, written last, holds the SHA-256 of every file.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only

from cm3_train.artifact import check_stamp, sha256_of_file, stamp, write_json
from cm3_train.checkpoint_io import check_digest
from cm3_train.foreign_pickles import check_metadata
from cm3_train.interface import INTERFACE_VERSION
from cm3_train.ranks import of_all_ranks

COMPONENT = "cm3-train/split-checkpoint"
MANIFEST = "manifest.json"


class KeptCheckpoints:
    """Names and order of the checkpoints in a run's folder.

    Args:
        folder: The run's.
        keep: How many of the last ones stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """Keep the arguments; nothing is read yet."""
        self.folder = folder
        self.keep = keep
        self.next_path = folder / "next.ckpt"
        self.last_path = folder / "last.ckpt"
        self.best_path = folder / "best.ckpt"
        self._broken: list[Path] = []

    def newest_whole(self) -> Path | None:
        """Return the checkpoint to go on from, None in a new run.

        Reads every byte of it, and says on stderr which newer ones are broken.

        Raises:
            ValueError: There are checkpoints, and all of them are broken; names each.
        """
        found = self._chain()
        faults: list[str] = []
        for path in found:
            try:
                check_whole(path)
            except (OSError, ValueError) as error:
                faults.append(str(error))
                self._broken.append(path)
                continue
            if faults and rank_zero_only.rank == 0:
                print(*faults, sep="\n", file=sys.stderr)
                print(f"{self.folder}: goes on from {path.name} instead", file=sys.stderr)
            return path
        if faults:
            raise ValueError(
                f"{self.folder}: wanted a whole checkpoint to go on from, got "
                f"{'; '.join(faults)}; put a copy there, or start a new run folder"
            )
        return None

    def settle(self) -> None:
        """Put names in order once the run goes on: for one process, while the others save nothing.

        What a kill left half moved moves on. What is broken is set aside as `broken-...`, but half
        a `next.ckpt` is deleted, and so is what a kill left half written.
        """
        for path in self.folder.glob(".*.tmp"):
            _remove(path)
        for path in self._broken:
            if path == self.next_path:
                _remove(path)
            else:
                _replace(path, path.with_name(f"broken-{path.name}"))
        self._broken.clear()
        if self.next_path.exists():
            self.move_on()
        for place, path in enumerate(self._chain()):
            if path != self._name(place):
                _replace(path, self._name(place))

    def move_on(self) -> None:
        """Let `next.ckpt` take the first name, and each other the name behind its own."""
        held = [path for path in self._chain() if path != self.next_path]
        for path in held[max(1, self.keep - 1) :]:
            _remove(path)
        for place, path in reversed(list(enumerate(held[: self.keep - 1], start=1))):
            if path != self._name(place):
                _replace(path, self._name(place))
        _replace(self.next_path, self.last_path)

    def take_best(self, written: Path) -> None:
        """Let a checkpoint that was written whole take the name of the best."""
        _replace(written, self.best_path)

    def _chain(self) -> list[Path]:
        """Return the checkpoints that are there, the newest first."""
        older = [path for path in self.folder.glob("last-*.ckpt") if path.stem[5:].isdecimal()]
        older.sort(key=lambda path: int(path.stem[5:]))
        return [path for path in (self.next_path, self.last_path) if path.exists()] + older

    def _name(self, place: int) -> Path:
        return self.folder / f"last-{place}.ckpt" if place else self.last_path


def check_whole(path: Path) -> None:
    """Refuse a checkpoint, file or folder, that is not as it was written.

    Raises:
        OSError: It, or one of its files, cannot be read.
        ValueError: It is damaged, cut short or none of ours.
    """
    if not path.is_dir():
        check_digest(path)
        return
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise ValueError(f"{path}: cut short: wanted {MANIFEST}, which is written last")
    try:
        content = json.loads(manifest.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{manifest}: wanted JSON, got {error}") from None
    files = check_stamp(content, COMPONENT, INTERFACE_VERSION, manifest).get("files")
    if not isinstance(files, dict) or not files:
        raise ValueError(f"{manifest}: wanted the hashes of files, got {files!r}")
    for name, wanted in files.items():
        if Path(name).name != name or name in ("", ".."):
            raise ValueError(f"{manifest}: wanted the names of files beside it, got {name!r}")
        if not (path / name).is_file():
            raise ValueError(f"{path / name}: wanted a part of the checkpoint, got none")
        if sha256_of_file(path / name) != wanted:
            raise ValueError(f"{path / name}: damaged or cut short: its SHA-256 is another")
    if (path / ".metadata").exists():
        check_metadata(path / ".metadata")


def seal(folder: Path) -> None:
    """Write the manifest of a folder that all processes have just written; call it in each.

    Every process hashes its own files, named `__RANK_...`, the first one the others.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    mine: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        start = path.name[2:].partition("_")[0] if path.name.startswith("__") else ""
        if path.name != MANIFEST and rank == (int(start) if start.isdecimal() else 0):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            mine[path.name] = sha256_of_file(path)
    everyones = of_all_ranks(mine)
    if rank == 0:
        files = {name: digest for one in everyones for name, digest in one.items()}
        write_json(folder / MANIFEST, {**stamp(COMPONENT, INTERFACE_VERSION), "files": files})


def _replace(path: Path, target: Path) -> None:
    """Rename a file or a folder over whatever has the name, and see it onto the disk."""
    if target.is_dir() or (path.is_dir() and target.exists()):
        _remove(target)
    os.replace(path, target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
