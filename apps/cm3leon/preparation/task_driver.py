"""Published files of a task to a set of instructions, from beginning to end.

note the examples in ranges -> encode each range -> join, report, and `task.json` last. The same
call goes on after a kill: a sealed range is not repeated, and what is made depends on no worker's
number, order or death.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from cm3_retrieval.picture_file import shown
from cm3_retrieval.sealed_folder import MANIFEST_NAME, read_folder
from cm3_train import TokenShards
from cm3_train.artifact import sha256_of_file, write_json
from cm3_train.shard_files import seal_shards
from cm3leon import VERSION
from cm3leon.data.pairs import DataError
from cm3leon.fingerprint import fingerprint_of
from cm3leon.instructions.readers.forms import open_reader
from cm3leon.instructions.sets import SPLITS, TASK_FILE, codes_per_row, write_task
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.named_parts import fingerprint_of_part
from cm3leon.preparation.decisions import encoded
from cm3leon.preparation.driver import encode_all, working
from cm3leon.preparation.encoding import COMPONENT
from cm3leon.preparation.examples import ExampleRanges
from cm3leon.preparation.inputs import PARTS, named_part
from cm3leon.preparation.job import TaskJob, TaskPreparation
from cm3leon.preparation.worker import open_tokenizers, settle_torch
from cm3leon.recipe import Recipe
from cm3leon.sheets import write_sheet
from cm3leon.stages import check_finished, lock_folder, read_object

REPORT = "report.json"
SHOWN = 4
"""Records of each split on the sample sheet."""


def prepare_task(
    recipe: Recipe, options: TaskPreparation, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Make a set of instructions, or go on with it; gives the report.

    Args:
        recipe: Size, longest sequence, and the classes of named parts.
        options: The task, its files, and the rest.
        say: Takes one line for the user.

    Raises:
        BlockingIOError: Another process works in the folder.
        DataError: Too many records are unusable, or none is left.
        FileNotFoundError: The files show no form of the task, or a part is neither made nor named.
        RuntimeError: The workers of one range died in every attempt.
        ValueError: An annotation file is broken, the folder belongs to another job, or a part does
            not fit.
    """
    folder = options.folder
    reader = open_reader(options.task, options.source, options.images)
    lock_folder(folder)
    recipe = recipe_of_parts(recipe, options)
    trust = options.trust or options.parts is None  # who gives a recipe by hand knows it
    settle_torch()
    tokenizers = open_tokenizers(recipe, trust=trust)
    ranges = ExampleRanges(options.source, folder / "work")
    fingerprint = fingerprint_of(
        VERSION,
        asdict(options.task),
        [options.fit, options.licences, recipe.data.size, recipe.decoder.max_length],
        [tokenizers.vocabulary.sha256, fingerprint_of_parts(recipe)],
        ranges.fingerprint(reader),
        fingerprint_of_weights(options.feature_weights),
    )
    job = TaskJob(recipe=recipe, options=options, fingerprint=fingerprint, trust=trust)
    if begun(job):
        say(f"{options.task.name}: done before, kept")
        shutil.rmtree(job.work, ignore_errors=True)  # a kill may have left it
        return read_object(folder / REPORT)
    shards = ranges.shards(reader)
    if not shards:
        raise DataError(f"{shown(options.source)}: wanted at least one record, got none")
    with working(job) as engine:
        encode_all(job, shards, engine, say)
    report = assemble(job, len(shards), tokenizers)
    write_samples(job, tokenizers)
    write_task(folder, options.task)
    shutil.rmtree(job.work)
    return report


def recipe_of_parts(recipe: Recipe, options: TaskPreparation) -> Recipe:
    """Return the recipe with the folder of the run whose parts are taken.

    Raises:
        FileNotFoundError: A tokenizer is neither made nor named.
        ValueError: The run's stages do not fit each other.
    """
    if options.parts is not None:
        recipe = replace(recipe, runs=options.parts.parent, name=options.parts.name)
    for group in ("texttok", "imagetok"):
        if named_part(recipe, group) is None and options.parts is None:
            raise FileNotFoundError(f"parts: wanted a run to take {group} from, or a named class")
        if named_part(recipe, group) is None and recipe.data.prepared is None:
            check_finished(recipe.parts_folder, group)
    return recipe


def fingerprint_of_parts(recipe: Recipe) -> list[str]:
    """Return what the tokenizers are: hashes of their files, or the classes that are named."""
    found = []
    for group in ("texttok", "imagetok"):
        named = named_part(recipe, group)
        if named is not None:
            found.append(fingerprint_of_part(named))
            continue
        place = recipe.parts_folder.joinpath(*PARTS[group])
        files = sorted(path for path in place.rglob("*") if path.is_file() and path.name != ".lock")
        found += [sha256_of_file(path) for path in files]
    return found


def fingerprint_of_weights(place: Path | None) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of the files that a feature's network is made of."""
    if place is None:
        return []
    files = sorted(path for path in (place, *place.rglob("*")) if path.is_file())
    facts = [(path.name, path.stat()) for path in files]
    return [(name, found.st_size, found.st_mtime_ns) for name, found in facts]


def begun(job: TaskJob) -> bool:
    """Note in the folder what its set is made from; tell whether it is finished.

    Raises:
        ValueError: The folder was made or begun with another task, settings, parts or files.
    """
    folder, noted = job.options.folder, job.work / "job.json"
    finished = (folder / TASK_FILE).is_file()
    for path in (folder / REPORT if finished else noted,):
        if path.is_file() and read_object(path).get("job") != job.fingerprint:
            raise ValueError(
                f"{shown(folder)}: made from another task, settings, parts or files; wanted the "
                "same command as before, or another folder"
            )
    if not finished:
        write_json(noted, {"job": job.fingerprint})
    return finished


def assemble(job: TaskJob, shards: int, tokenizers: Tokenizers) -> dict[str, Any]:
    """Seal the token shards of each split, and write the report; gives it.

    Raises:
        DataError: No record is left.
    """
    folder, task = job.options.folder, job.options.task
    places = [encoded(job.work, number) for number in range(shards)]
    manifests = [read_folder(place, MANIFEST_NAME, COMPONENT)[0] for place in places]
    splits = {}
    for split in SPLITS:
        files = [manifest["tokens"][split] for manifest in manifests if split in manifest["tokens"]]
        if not files:
            continue
        for stale in (folder / split).glob(".*.tmp"):  # of a worker that was killed
            stale.unlink()
        seal_shards(
            folder / split,
            files,
            codes_per_image=codes_per_row(task, tokenizers),
            vocabulary_sha256=tokenizers.vocabulary.sha256,
        )
        splits[split] = sum(entry["rows"] for entry in files)
    report = {"task": task.name, "splits": splits, **report_of(manifests), "job": job.fingerprint}
    if not splits:
        raise DataError(f"{shown(folder)}: wanted at least one usable record, got none: {report}")
    write_json(folder / REPORT, report)
    return report


def report_of(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up what the ranges have counted."""
    names = ("counts", "reasons", "skipped", "licences", "left_out_by_licence", "text_ids")
    totals: dict[str, Counter[str]] = {name: Counter() for name in names}
    for manifest in manifests:
        for name, total in totals.items():
            total.update(manifest[name])
    counts = totals["counts"]
    given, kept = counts["boxes"], counts["boxes_kept"]
    return {
        "records": counts["records"],
        "quarantined": counts["bad"],
        "quarantined_too_long": counts["too_long"],
        "quarantine_reasons": dict(totals["reasons"].most_common(100)),
        "skipped": dict(totals["skipped"].most_common(100)),
        "boxes": {"given": given, "kept": kept, "cropped_away": given - kept},
        "licences": dict(totals["licences"].most_common(1000)),
        "left_out_by_licence": dict(totals["left_out_by_licence"].most_common(1000)),
        "text_ids": dict(sorted(totals["text_ids"].items(), key=lambda x: int(x[0].split()[0]))),
    }


def write_samples(job: TaskJob, tokenizers: Tokenizers) -> None:
    """Draw `report.png`: some records of each split, their pictures through the codes."""
    folder, task = job.options.folder, job.options.task
    lines: list[tuple[str, list[np.ndarray | None]]] = []
    for split in SPLITS:
        if not (folder / split).is_dir():
            continue
        shards = TokenShards(folder / split, tokenizers.vocabulary.sha256)
        for key in shards.keys[:SHOWN].tolist():
            codes = np.split(shards.codes(key), len(task.pictures))
            said = " / ".join(json.loads(shards.caption(key))["texts"].values())
            shown_codes = np.stack(codes)
            drawn = tokenizers.decode(shown_codes) if tokenizers.draws else [None] * len(codes)
            lines.append((f"{split}: {said}", list(drawn)))
    write_sheet(folder / "report.png", lines, [task.pictures])
