"""Stages of a run: folders that are made once and named by a hash of all they were made from.

A stage whose folder carries the right hash is skipped. One that was interrupted starts over in a
fresh folder, or, if it is resumable (training, which keeps checkpoints), goes on in its own. A
finished folder has ``stage.json``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Stage:
    """A finished stage."""

    name: str
    """Name of the stage and of its folder."""
    folder: Path
    """Where its files are."""
    fingerprint: str
    """SHA-256 of name, configuration and the fingerprints of its inputs."""
    seconds: float
    """How long the work took, when it was done."""
    kept: bool
    """Whether it was there already."""
    resumed: bool
    """Whether it was interrupted; then ``seconds`` are those of its last leg."""


class Stages:
    """Runs stages below one folder.

    Args:
        root: The folder; made if missing.
        say: Takes one line for the user.
        frozen: Take finished stages as they are; a stage that is not finished is an error.

    Raises:
        BlockingIOError: Another process makes stages below the same folder.
    """

    def __init__(
        self, root: Path, say: Callable[[str], None] = print, frozen: bool = False
    ) -> None:
        self.root = root
        self.say = say
        self.frozen = frozen
        self.done: dict[str, Stage] = {}
        if not frozen:
            root.mkdir(parents=True, exist_ok=True)
            _lock(root)

    def run(
        self,
        name: str,
        config: Any,
        inputs: Sequence[str],
        work: Callable[[Path], None],
        *,
        resumable: bool = False,
    ) -> Stage:
        """Give the stage's folder, made now if it is not there yet.

        Args:
            name: Name of the stage and of its folder.
            config: What the work depends on: dataclasses, mappings, sequences, plain values.
            inputs: Names of earlier stages that the work reads.
            work: Fills the folder that it is given.
            resumable: An interrupted ``work`` goes on in the same folder instead of starting over.

        Raises:
            FileNotFoundError: Frozen, and the stage is not finished.
        """
        folder = self.root / name
        found = _read(folder / "stage.json")
        if self.frozen:
            if "fingerprint" not in found:
                raise FileNotFoundError(
                    f"{folder}: no finished stage; wanted a run that apps/pretrain.py has ended"
                )
            for earlier, fingerprint in found["inputs"].items():
                if _read(self.root / earlier / "stage.json").get("fingerprint") != fingerprint:
                    raise ValueError(
                        f"{folder}: made from another {earlier} than the run now holds; "
                        "wanted a run that apps/pretrain.py has ended"
                    )
            return Stage(
                name, folder, found["fingerprint"], found["seconds"], True, found["resumed"]
            )
        fingerprint = fingerprint_of(name, config, [self.done[i].fingerprint for i in inputs])
        if found.get("fingerprint") == fingerprint:
            self.say(f"{name}: done before, kept")
            stage = Stage(name, folder, fingerprint, found["seconds"], True, found["resumed"])
        else:
            facts = {
                "fingerprint": fingerprint,
                "inputs": {i: self.done[i].fingerprint for i in inputs},
            }
            stage = self._make(name, folder, facts, work, resumable)
        self.done[name] = stage
        return stage

    def _make(
        self,
        name: str,
        folder: Path,
        facts: dict[str, Any],
        work: Callable[[Path], None],
        resumable: bool,
    ) -> Stage:
        # Work that cannot go on is done aside, so that the real folder is whole or not there.
        place = folder if resumable else folder.with_name(f".{name}.partial")
        fingerprint = facts["fingerprint"]
        goes_on = resumable and _read(folder / "started.json").get("fingerprint") == fingerprint
        if not goes_on:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            write_json(place / "started.json", {"fingerprint": fingerprint})
        self.say(f"{name}: goes on" if goes_on else f"{name}: starts")
        start = time.perf_counter()
        try:
            work(place)
            seconds = time.perf_counter() - start
            write_json(place / "stage.json", {**facts, "seconds": seconds, "resumed": goes_on})
        except BaseException:
            if not resumable:
                shutil.rmtree(place, ignore_errors=True)
            raise
        if place != folder:
            shutil.rmtree(folder, ignore_errors=True)
            place.rename(folder)
        self.say(f"{name}: {seconds:.1f} s")
        return Stage(name, folder, fingerprint, seconds, False, goes_on)


_LOCKS: dict[Path, IO[bytes]] = {}


def _lock(root: Path) -> None:
    """Keep other processes out of a folder for as long as this one lives."""
    root = root.resolve()
    if root in _LOCKS:
        return
    file = open(root / ".lock", "wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise BlockingIOError(
            error.errno, f"{root}: another run works in this folder; wait, or name another"
        ) from None
    _LOCKS[root] = file


def fingerprint_of(*parts: Any) -> str:
    """SHA-256 of dataclasses, mappings, sequences and plain values, in canonical JSON."""
    text = json.dumps(parts, default=_plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all (temporary file, fsync, rename)."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, default=_plain, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"wanted plain values in a configuration, got {type(value).__name__}")
