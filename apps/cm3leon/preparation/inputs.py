"""What a preparation is made from: its parts, copied into the folder, and the raw pairs.

The fingerprint of the job covers both, so that a folder is never mixed from two of them.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

from cm3_retrieval.metadata_file import NAMES
from cm3_retrieval.picture_file import shown
from cm3_train.artifact import write_json
from cm3leon import VERSION
from cm3leon.fingerprint import fingerprint_of
from cm3leon.named_parts import fingerprint_of_part
from cm3leon.parts import NO_BANK
from cm3leon.preparation.image_folder import fingerprint_of_pictures
from cm3leon.preparation.job import Preparation
from cm3leon.preparation.source import files_of
from cm3leon.prepared_folder import PREPARED_FILE
from cm3leon.recipe import Recipe
from cm3leon.stages import check_finished, read_object

PARTS = {
    "texttok": ("texttok", "tokenizer"),
    "imagetok": ("imagetok", "vqgan"),
    "retrieval": ("clip", "clip"),
}
"""Group of the recipe -> the stage that makes its part, and the part's folder in it."""


def origins_of(recipe: Recipe, options: Preparation) -> dict[str, str]:
    """Return for each group of `PARTS` what its part is made from; nothing is copied or opened.

    Raises:
        FileNotFoundError: A part is neither made nor named.
        ValueError: The run's stages do not fit each other, or it has no encoder.
    """
    if not recipe.retrieval.bank:
        raise ValueError(f"--parts {options.parts}: {NO_BANK}")
    origins = {}
    for group, (stage, _) in PARTS.items():
        named = named_part(recipe, group)
        if named is not None:
            origins[group] = fingerprint_of_part(named)
            continue
        if options.parts is None:
            role = f"{group}.{'encoder' if group == 'retrieval' else 'tokenizer'}"
            raise FileNotFoundError(f"parts: wanted a run to take {stage} from, or {role}")
        check_finished(options.parts, stage)
        path = options.parts / stage / "stage.json"
        origins[group] = read_object(path, "fingerprint")["fingerprint"]
    return origins


def named_part(recipe: Recipe, group: str) -> dict[str, object] | None:
    """Return the class that the recipe names as a group's part, or None."""
    settings = vars(getattr(recipe, group))
    return settings.get("tokenizer") or settings.get("encoder")


def begun(folder: Path, **wanted: str) -> bool:
    """Note what a folder is made from, before anything is copied; tell whether it is finished.

    Args:
        folder: The prepared folder.
        wanted: Fingerprints by name, such as `inputs`; they are compared with those noted before.

    Raises:
        ValueError: The folder was made or begun with other settings, parts or files.
    """
    finished, noted = folder / PREPARED_FILE, folder / "work" / "job.json"
    found = [read_object(path) for path in (finished, noted) if path.is_file()]
    foreign = not found and any((folder / stage / part).exists() for stage, part in PARTS.values())
    if foreign or any(one.get(n, value) != value for one in found for n, value in wanted.items()):
        raise ValueError(
            f"{shown(folder)}: made from other settings, parts or raw pairs; wanted the same "
            "command as before, or another folder"
        )
    if finished.is_file():
        return True
    write_json(noted, {**(found[0] if found else {}), **wanted})
    return False


def copy_parts(recipe: Recipe, options: Preparation) -> None:
    """Copy the parts that the recipe does not name from the run that has made them."""
    for group, (stage, part) in PARTS.items():
        target = options.folder / stage / part
        if named_part(recipe, group) is not None or target.is_dir():
            continue
        assert options.parts is not None, "origins_of has found a run"
        aside = target.with_name(f".{part}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(options.parts / stage / part, aside)
        (aside / ".lock").unlink(missing_ok=True)
        aside.rename(target)


def fingerprint_of_inputs(recipe: Recipe, options: Preparation) -> str:
    """Return a hash of all that decides the result: settings, parts, and the source's files.

    Raises:
        FileNotFoundError: A part is neither made nor named.
        ValueError: The run's stages do not fit each other, or metadata cannot be read.
    """
    source = options.source
    suffixes = (".tar", ".parquet", ".csv", ".jsonl")
    names = [name for suffix in suffixes for name in files_of(source, suffix)]
    counted = [n for n in names if n.endswith((".tar", ".parquet")) or Path(n).name in NAMES]
    facts = [(n, (source / n).stat().st_size, (source / n).stat().st_mtime_ns) for n in counted]
    settings = {
        name: value
        for name, value in asdict(options).items()
        if name
        not in ("source", "folder", "parts", "engine", "workers", "attempts", "trust", "max_bad")
    }
    return fingerprint_of(
        VERSION,
        settings,
        recipe.data,
        [recipe.seed, recipe.decoder.views, recipe.decoder.max_length],
        recipe.retrieval.strategy,
        origins_of(recipe, options),
        facts,
        fingerprint_of_pictures(source),
    )
