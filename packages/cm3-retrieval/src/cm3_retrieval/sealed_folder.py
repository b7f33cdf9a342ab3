"""Folders that are either whole or refused: content files plus one sealed manifest.

Takes writers of single files and a manifest; gives a folder in which every content file carries
its SHA-256 in its name and in the manifest, and the manifest carries its own. The manifest is
renamed into place last, so a killed save leaves the old folder or the new one, and a flipped byte
anywhere is found on load.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from cm3_retrieval.interface import INTERFACE_VERSION

MANIFEST_NAME = "manifest.json"
"""The manifest's usual file name."""

_TEMPORARY = ".writing-"

Writer = Callable[[BinaryIO], object]


def write_folder(
    folder: Path | str,
    manifest_name: str,
    component: str,
    contents: Mapping[str, Writer],
    facts: Mapping[str, Any],
) -> None:
    """Write the content files, then the manifest that names them. One writer at a time.

    Args:
        folder: Made if missing.
        manifest_name: File name of the manifest, such as `manifest.json`.
        component: What is saved, one of the names in `interface.py`.
        contents: Plain file name, such as `index.faiss`, to a function that writes its bytes. On
            disk the name is `index-<first 16 digits of the SHA-256>.faiss`.
        facts: Further entries of the manifest, JSON values.

    Raises:
        OSError: A file could not be written; its temporary file is removed, and what was in the
            folder before is still valid.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"{_TEMPORARY}*"):  # of a save that was killed
        stale.unlink()
    files = {name: _write_content(folder, name, writer) for name, writer in contents.items()}
    manifest = {
        "component": component,
        "interface_version": INTERFACE_VERSION,
        **facts,
        "files": files,
    }
    manifest["manifest_sha256"] = _seal(manifest)
    text = _manifest_text(manifest)
    _write_atomic(folder, lambda file: file.write(text.encode()), lambda _: manifest_name)
    # From here on the new state counts; what an older save left behind is only ballast.
    kept = {entry["name"] for entry in files.values()}
    for name in contents:
        plain = Path(name)
        for path in folder.glob(f"{plain.stem}-{'[0-9a-f]' * 16}{plain.suffix}"):
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
    except ValueError as error:
        raise ValueError(f"{path}: damaged, not valid JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("component") != component:
        found = manifest.get("component") if isinstance(manifest, dict) else type(manifest).__name__
        raise ValueError(f"{path}: wanted component {component!r}, got {found!r}")
    version = str(manifest.get("interface_version"))
    if version.split(".")[0] != INTERFACE_VERSION.split(".")[0]:
        raise ValueError(
            f"{path}: wanted interface version {INTERFACE_VERSION.split('.')[0]}.x, got {version}"
        )
    # The text is compared, too: a changed space would leave the parsed manifest as it was.
    if manifest.get("manifest_sha256") != _seal(manifest) or raw != _manifest_text(manifest).encode(
        errors="surrogatepass"
    ):
        raise ValueError(f"{path}: damaged, its SHA-256 does not match its content")
    paths = {name: folder / entry["name"] for name, entry in manifest["files"].items()}
    for name, content in paths.items():
        if not content.is_file():
            raise FileNotFoundError(f"{content}: missing, though {path} names it")
        with content.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != manifest["files"][name]["sha256"]:
                raise ValueError(f"{content}: damaged, its SHA-256 differs from {path}")
    return manifest, paths


def write_file(path: Path | str, writer: Writer) -> None:
    """Write one file, whole or not at all.

    Raises:
        OSError: It could not be written; what was there before still is.
    """
    path = Path(path)
    _write_atomic(path.parent, writer, lambda _: path.name)


def _write_content(folder: Path, name: str, writer: Writer) -> dict[str, str]:
    plain = Path(name)
    digest = ""

    def final_name(file: BinaryIO) -> str:
        nonlocal digest
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore
        return f"{plain.stem}-{digest[:16]}{plain.suffix}"

    path = _write_atomic(folder, writer, final_name)
    return {"name": path.name, "sha256": digest}


def _write_atomic(folder: Path, writer: Writer, final_name: Callable[[BinaryIO], str]) -> Path:
    """Temporary file in the same folder, fsync, rename, fsync of the folder."""
    temporary = folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
    try:
        with temporary.open("x+b") as file:
            writer(file)
            file.flush()
            os.fsync(file.fileno())
            path = folder / final_name(file)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f"could not write into {folder}: {error.strerror}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path


def _manifest_text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2, sort_keys=True) + "\n"


def _seal(manifest: Mapping[str, Any]) -> str:
    sealed = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    return hashlib.sha256(_manifest_text(sealed).encode()).hexdigest()
