"""Folders that are either whole or refused: content files plus one sealed manifest.

Takes writers of single files and a manifest; gives a folder in which every content file carries
its SHA-256 in its name and in the manifest, and the manifest carries its own. The manifest is
renamed into place last, so a killed save leaves the old folder or the new one, and a flipped byte
anywhere is found on load. Writers wait for each other; a reader takes no lock, and reads again if a
writer replaced the files under its hands.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

from cm3_retrieval.artifact import atomic_file, check_stamp, sha256_of_file, stamp
from cm3_retrieval.folder_lock import locked
from cm3_retrieval.interface import INTERFACE_VERSION
from cm3_retrieval.picture_file import shown

MANIFEST_NAME = "manifest.json"
"""The manifest's usual file name."""

_HEX_DIGIT = "[0-9a-f]"

_ATTEMPTS = 4
"""How often a reader tries a folder that changes each time."""

Writer = Callable[[BinaryIO], object]

Result = TypeVar("Result")


def check_target(folder: Path | str, manifest_name: str, component: str) -> None:
    """Refuse a folder in which the manifest's name is taken by anything but this component.

    `write_folder` asks, too; before long work it is asked so that nothing is lost.

    Raises:
        ValueError: The file is of another component, or no manifest of ours.
    """
    path = Path(folder) / manifest_name
    found = _manifest_on_disk(path).get("component")
    if found != component and os.path.lexists(path):
        got = "another file" if found is None else f"one of component {found!r}"
        raise ValueError(
            f"{shown(path)}: wanted no such file, or that of a saved {component} to replace, "
            f"got {got}; save to another folder"
        )


def write_folder(
    folder: Path | str,
    manifest_name: str,
    component: str,
    contents: Mapping[str, Writer],
    facts: Mapping[str, Any],
    *,
    replaces: str | None = None,
) -> str:
    """Write the content files, then the manifest that names them, while no one else writes.

    Args:
        folder: Where to write; made if missing.
        manifest_name: File name of the manifest, such as `manifest.json`.
        component: What is saved, one of the names in `interface.py`.
        contents: Plain file name, such as `index.faiss`, -> function that writes its bytes. On disk
            the name is `index-<first 16 digits of the SHA-256>.faiss`.
        facts: Further entries of the manifest, JSON values.
        replaces: The seal of the manifest that may be replaced; None replaces any of `component`.

    Returns:
        The seal of the new manifest, its SHA-256.

    Raises:
        ValueError: The folder holds another manifest than the one that may be replaced, such as
            one of another component.
        OSError: A file could not be written; what this call wrote is removed, and what was in the
            folder before is still valid.
    """
    folder = Path(folder)
    path = folder / manifest_name
    with locked(folder) as lock:
        check_target(folder, manifest_name, component)
        before = _manifest_on_disk(path)
        found = before.get("manifest_sha256")
        if replaces is not None and found not in (None, replaces):
            raise ValueError(
                f"{folder}: wanted the {component} that was loaded from there, got one that "
                f"another writer has saved since; load it again, or save to another folder"
            )
        for name in (*contents, manifest_name):  # left by a save that was killed
            for stale in folder.glob(f".{name}.{8 * _HEX_DIGIT}.tmp"):
                stale.unlink()

        def note(name: str) -> None:
            lock.write(f"{manifest_name}/{name}\n")
            lock.flush()

        for name in _names_in(before):
            note(name)
        try:
            files = {
                name: _write_content(folder / name, writer, note)
                for name, writer in contents.items()
            }
            manifest = {**stamp(component, INTERFACE_VERSION), **facts, "files": files}
            manifest["manifest_sha256"] = _seal(manifest)
            with atomic_file(path) as file:
                file.write(_manifest_text(manifest).encode())
        finally:  # the manifest that is there now decides which of our files still count
            ours, others = _notes(lock, manifest_name)
            for name in ours - _names_in(_manifest_on_disk(path)):
                (folder / name).unlink(missing_ok=True)
            lock.truncate(0)
            lock.writelines(others)
            lock.flush()
    return manifest["manifest_sha256"]


def read_folder(
    folder: Path | str, manifest_name: str, component: str
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Read the manifest and check it and every content file.

    Returns:
        The manifest, and plain file name -> path of the checked file.

    Raises:
        FileNotFoundError: The manifest or a file it names is missing.
        ValueError: Not this component, another major version, or changed bytes.
    """
    return open_folder(folder, manifest_name, component, lambda manifest, paths: (manifest, paths))


def open_folder(
    folder: Path | str,
    manifest_name: str,
    component: str,
    read: Callable[[dict[str, Any], dict[str, Path]], Result],
) -> Result:
    """Check a folder as `read_folder` does and open its files; again if a writer replaced them.

    Args:
        folder: The folder.
        manifest_name: File name of its manifest.
        component: What it holds.
        read: Takes the manifest and the paths of the content files; gives what is wanted of them.

    Returns:
        What `read` gave.

    Raises:
        FileNotFoundError: The manifest or a file it names is missing.
        ValueError: Not this component, another major version, or changed bytes.
    """
    path = Path(folder) / manifest_name
    for attempts_left in reversed(range(_ATTEMPTS)):
        seen = path.read_bytes() if path.is_file() else b""
        try:
            return read(*_checked(path, component))
        except (OSError, RuntimeError, ValueError):
            now = path.read_bytes() if path.is_file() else b""
            if now == seen or not attempts_left:
                raise
    raise AssertionError("the last attempt returns or raises")


def _checked(path: Path, component: str) -> tuple[dict[str, Any], dict[str, Path]]:
    folder = path.parent
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no {path.name}; wanted a saved {component}")
    raw = path.read_bytes()
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, not valid JSON ({error})") from error
    manifest = check_stamp(manifest, component, INTERFACE_VERSION, path)
    # Compare the text, too: an added space would not change the parsed manifest.
    text = _manifest_text(manifest).encode(errors="surrogatepass")
    if manifest.get("manifest_sha256") != _seal(manifest) or raw != text:
        raise ValueError(f"{path}: damaged, its SHA-256 does not match its content")
    paths = {name: folder / entry["name"] for name, entry in manifest["files"].items()}
    for name, content in paths.items():
        if not content.is_file():
            raise FileNotFoundError(f"{content}: missing, though {path} names it")
        if sha256_of_file(content) != manifest["files"][name]["sha256"]:
            raise ValueError(f"{content}: damaged, its SHA-256 differs from {path}")
    return manifest, paths


def _manifest_on_disk(path: Path) -> dict[str, Any]:
    """Return the manifest as it is, unchecked; {} if there is none that can be read."""
    try:
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _names_in(manifest: Mapping[str, Any]) -> set[str]:
    """Return the content files that a manifest names, and nothing outside its folder."""
    files = manifest.get("files")
    entries = files.values() if isinstance(files, dict) else ()
    return _content_names(entry.get("name") for entry in entries if isinstance(entry, dict))


def _notes(lock: IO[str], manifest_name: str) -> tuple[set[str], list[str]]:
    """Return the content files noted under one manifest, and the lines of other manifests.

    They are what this save, or a killed one before it, replaces or has begun to write.
    """
    lock.seek(0)
    lines = lock.readlines()
    own = [line for line in lines if line.startswith(f"{manifest_name}/")]
    names = _content_names(line.strip().removeprefix(f"{manifest_name}/") for line in own)
    return names, [line for line in lines if line not in own]


def _content_names(names: Any) -> set[str]:
    """Keep what `_write_content` could have named."""
    form = re.compile(rf"[^/\0]+-{16 * _HEX_DIGIT}(\.[^/\0]*)?")
    return {name for name in names if isinstance(name, str) and form.fullmatch(name)}


def _write_content(path: Path, writer: Writer, note: Callable[[str], None]) -> dict[str, str]:
    """Write one file under a name with its SHA-256 in it; return its entry in the manifest.

    `note` gets the name before the file does: were this process killed, the next writer would
    remove the file.
    """
    entry: dict[str, str] = {}

    def name_by_hash(file: BinaryIO) -> str:
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore
        entry.update(name=f"{path.stem}-{digest[:16]}{path.suffix}", sha256=digest)
        note(entry["name"])
        return entry["name"]

    with atomic_file(path, name=name_by_hash) as file:
        writer(file)
    return entry


def _manifest_text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2, sort_keys=True) + "\n"


def _seal(manifest: Mapping[str, Any]) -> str:
    sealed = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    return hashlib.sha256(_manifest_text(sealed).encode()).hexdigest()
