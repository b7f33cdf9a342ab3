"""Stages of a run: folders that are made once and named by a hash of all they were made from.

A stage whose folder carries the right hash is skipped. One that was interrupted starts over in a
fresh folder, or, if it is resumable (training, which keeps checkpoints), goes on in its own. A
finished folder has `stage.json`.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cm3_retrieval.text_file import parse_object
from cm3_train.artifact import atomic_file, write_json
from cm3leon import VERSION
from cm3leon.fingerprint import fingerprint_of


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
    """Whether it was interrupted; then `seconds` are those of its last leg."""


class Stages:
    """The stages below one folder.

    Args:
        root: The folder; made if missing.
        say: Takes one line for the user.
        first: Whether this process makes stages. One that does not waits for each until the first
            process, which runs the same command, has made it.

    Raises:
        BlockingIOError: Another process makes stages below the same folder.
        FileNotFoundError: The first process does not work in this folder.
    """

    def __init__(
        self, root: Path, say: Callable[[str], None] = print, *, first: bool = True
    ) -> None:
        self.root = root
        self.say = say if first else _say_nothing
        self.first = first
        self.done: dict[str, Stage] = {}
        self._fingerprints: dict[str, str] = {}
        if first:
            root.mkdir(parents=True, exist_ok=True)
            lock_folder(root)
        elif not _wait(lambda: (root / ".lock").exists(), FIRST_SECONDS):
            raise FileNotFoundError(
                f"{root}: wanted the folder in which the first process works, got none after "
                f"{FIRST_SECONDS} s; all nodes must share it"
            )

    def run(
        self,
        name: str,
        config: Any,
        inputs: Sequence[str],
        work: Callable[[Path], None],
        *,
        resumable: bool = False,
        together: bool = False,
        settings: Mapping[str, bytes] | None = None,
    ) -> Stage:
        """Return the stage, made now if it is not there yet.

        Args:
            name: Name of the stage and of its folder.
            config: What the work depends on: dataclasses, mappings, sequences, plain values.
            inputs: Names of earlier stages, or of parts that were `given`, that the work reads.
            work: Fills the folder that it is given.
            resumable: An interrupted `work` goes on in the same folder instead of starting over.
            together: All processes do the work, in the same folder; it must be resumable.
            settings: Files for who opens the finished stage, in its folder from the moment on that
                it is finished. Those of a stage that is kept are replaced.
        """
        folder = self.root / name
        found = _read(folder / "stage.json")
        fingerprint = fingerprint_of(name, config, [self._fingerprints[i] for i in inputs])
        if found.get("fingerprint") == fingerprint:
            self.say(f"{name}: done before, kept")
            if self.first:
                _write_files(folder, settings or {})
            stage = Stage(name, folder, fingerprint, found["seconds"], True, found["resumed"])
        elif not self.first:
            stage = self._follow(name, folder, fingerprint, work if together else None)
        else:
            facts = {
                "version": VERSION,
                "fingerprint": fingerprint,
                "inputs": {i: self._fingerprints[i] for i in inputs if i in self.done},
            }
            stage = self._make(name, folder, facts, work, resumable, settings or {})
        self.done[name] = stage
        self._fingerprints[name] = fingerprint
        return stage

    def given(self, name: str, fingerprint: str) -> None:
        """Put a part in a stage's place that is not made here, such as published weights."""
        self._fingerprints[name] = fingerprint

    def _follow(
        self, name: str, folder: Path, fingerprint: str, work: Callable[[Path], None] | None
    ) -> Stage:
        """Take part in a stage, or wait for it; whoever starts the processes ends them together."""
        if work is not None:
            _wait(lambda: _read(folder / "started.json").get("fingerprint") == fingerprint)
            work(folder)
        _wait(lambda: _read(folder / "stage.json").get("fingerprint") == fingerprint)
        found = _read(folder / "stage.json")
        return Stage(name, folder, fingerprint, found["seconds"], True, found["resumed"])

    def _make(
        self,
        name: str,
        folder: Path,
        facts: dict[str, Any],
        work: Callable[[Path], None],
        resumable: bool,
        settings: Mapping[str, bytes],
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
            _write_files(place, settings)
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


def check_finished(root: Path, name: str) -> None:
    """Refuse a run whose stage, or one it was made from, is missing or was made anew since.

    Raises:
        FileNotFoundError: The stage is not finished.
        ValueError: Another version made it, or an input is not the one it was made from.
    """
    found = _read(root / name / "stage.json")
    if "fingerprint" not in found:
        raise FileNotFoundError(
            f"{root / name}: no finished stage; wanted a run that apps/pretrain.py has ended"
        )
    if found.get("version") != VERSION:
        raise ValueError(
            f"{root}: made by cm3leon {found.get('version', '0.1')}, this is {VERSION}; "
            "run apps/pretrain.py again, or open it with the version that made it"
        )
    inputs = found.get("inputs")
    if not isinstance(inputs, dict):
        raise ValueError(f"{root / name / 'stage.json'}: wanted a finished stage, got no inputs")
    for earlier, fingerprint in inputs.items():
        if _read(root / earlier / "stage.json").get("fingerprint") != fingerprint:
            raise ValueError(
                f"{root / name}: made from another {earlier} than the run now holds; "
                "wanted a run that apps/pretrain.py has ended"
            )
        check_finished(root, earlier)


FIRST_SECONDS = 120
"""How long a process waits for the first one to begin."""


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        with atomic_file(folder / name) as file:
            file.write(content)


def _say_nothing(line: str) -> None:
    pass


def _wait(until: Callable[[], bool], seconds: float = math.inf) -> bool:
    """Wait until something holds; tell whether it did in time."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


_LOCKS: dict[Path, IO[bytes]] = {}


def lock_folder(root: Path) -> None:
    """Make a folder, and keep other processes out of it for as long as this one lives.

    Raises:
        BlockingIOError: Another process has it.
    """
    root.mkdir(parents=True, exist_ok=True)
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


def _forget_locks() -> None:
    """Leave the locks to the process that took them: a forked worker may outlive it."""
    for file in _LOCKS.values():
        file.close()
    _LOCKS.clear()


os.register_at_fork(after_in_child=_forget_locks)


def read_object(path: Path, *names: str) -> dict[str, Any]:
    """Return the JSON object that a stage has written, with what it needs in it.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is no JSON object, or lacks one of `names`.
    """
    found = parse_object(path.read_bytes(), path)
    for name in names:
        if name not in found:
            raise ValueError(f"{path}: wanted {name!r}, got {sorted(found)}")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}
