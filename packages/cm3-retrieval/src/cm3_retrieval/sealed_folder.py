"""Folders that are either whole or refused: content files plus one sealed manifest.

Takes writers of single files and a manifest; gives a folder in which every content file carries
its SHA-256 in its name and in the manifest, and the manifest carries its own. The manifest is
renamed into place last, so a killed save leaves the old folder or the new one, and a flipped byte
anywhere is found on load.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from cm3_retrieval.artifact import atomic_file, check_stamp, sha256_of_file, stamp
from cm3_retrieval.interface import INTERFACE_VERSION

MANIFEST_NAME = "manifest.json"
"""The manifest's usual file name."""

_HEX_DIGIT = "[0-9a-f]"

Writer = Callable[[BinaryIO], object]


def write_folder(
    folder: Path | str,
    manifest_name: str,
    component: str,
    contents: Mapping[str, Writer],
    facts: Mapping[str, Any],
) -> None:
    """Write the content files, then the manifest that names them; one writer at a time.

    Args:
        folder: Where to write; made if missing.
        manifest_name: File name of the manifest, such as `manifest.json`.
        component: What is saved, one of the names in `interface.py`.
        contents: Plain file name, such as `index.faiss`, -> function that writes its bytes. On disk
            the name is `index-<first 16 digits of the SHA-256>.faiss`.
        facts: Further entries of the manifest, JSON values.

    Raises:
        OSError: A file could not be written; its temporary file is removed, and what was in the
            folder before is still valid.
    """
    folder = Path(folder)
    for name in (*contents, manifest_name):  # left by a save that was killed
        for stale in folder.glob(f".{name}.{8 * _HEX_DIGIT}.tmp"):
            stale.unlink()
    files = {name: _write_content(folder / name, writer) for name, writer in contents.items()}
    manifest = {**stamp(component, INTERFACE_VERSION), **facts, "files": files}
    manifest["manifest_sha256"] = _seal(manifest)
    with atomic_file(folder / manifest_name) as file:
        file.write(_manifest_text(manifest).encode())
    # The new state counts from here on; files of an older save are no longer needed.
    kept = {entry["name"] for entry in files.values()}
    for name in contents:
        plain = Path(name)
        for path in folder.glob(f"{plain.stem}-{16 * _HEX_DIGIT}{plain.suffix}"):
            if path.name not in kept:
                path.unlink()


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
    folder = Path(folder)
    path = folder / manifest_name
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no {manifest_name}; wanted a saved {component}")
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


def _write_content(path: Path, writer: Writer) -> dict[str, str]:
    """Write one file under a name with its SHA-256 in it; return its entry in the manifest."""
    entry: dict[str, str] = {}

    def name_by_hash(file: BinaryIO) -> str:
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore
        entry.update(name=f"{path.stem}-{digest[:16]}{path.suffix}", sha256=digest)
        return entry["name"]

    with atomic_file(path, name=name_by_hash) as file:
        writer(file)
    return entry


def _manifest_text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2, sort_keys=True) + "\n"


def _seal(manifest: Mapping[str, Any]) -> str:
    sealed = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    return hashlib.sha256(_manifest_text(sealed).encode()).hexdigest()
