"""The end of a preparation: what the shards left is joined, counted and shown."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cm3_retrieval.interface import Encoder
from cm3_retrieval.sealed_folder import MANIFEST_NAME, read_folder
from cm3_train.artifact import atomic_file, sha256_of_file, write_json
from cm3_train.shard_files import seal_shards
from cm3leon.data.pairs import SPLITS
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.preparation.decisions import Decisions, encoded, pairs_of, sampled
from cm3leon.preparation.encoding import COMPONENT
from cm3leon.preparation.finishing import joined_tables, vectors_of
from cm3leon.preparation.job import AnyJob, Job
from cm3leon.preparation.source import Shard
from cm3leon.preparation.worker import finished
from cm3leon.sheets import write_sheet

SHOWN = 12
"""Pictures on the sample sheet."""


def assemble(
    job: Job, shards: list[Shard], decisions: Decisions, tokenizers: Tokenizers, encoder: Encoder
) -> dict[str, Any]:
    """Write everything but `prepared.json`; gives that file's content and the report."""
    folder, numbers = job.options.folder, range(len(shards))
    places = [finished(job.work, number) for number in numbers]
    manifests = [read_folder(place, MANIFEST_NAME, COMPONENT)[0] for place in places]
    tokens = folder / "shards" / "tokens"
    for stale in tokens.glob(".*.tmp"):  # of a worker that was killed
        stale.unlink()
    seal_shards(
        tokens,
        [entry for manifest in manifests for entry in manifest["tokens"]],
        codes_per_image=tokenizers.num_codes_per_image,
        vocabulary_sha256=tokenizers.vocabulary.sha256,
    )
    for name in ("training", "inference"):
        joined_tables(places, name).save(folder / "retrieval" / f"neighbours-{name}")
    for lock in folder.glob("retrieval/*/.lock"):
        lock.unlink()
    write_splits(decisions, folder / "splits")
    copy_pairs(places, folder / "pairs")
    write_pictures(job, decisions, folder / "pictures")
    report = report_of(job, decisions, manifests)
    write_json(folder / "report.json", report)
    write_samples(folder, tokenizers)
    made = {"fingerprint": fingerprint_of_files(folder), "pairs": report["pairs"]}
    return {"report": report, "prepared": made}


def write_splits(decisions: Decisions, folder: Path) -> None:
    """Write the keys of each split, in the order of the shards."""
    for place, name in enumerate(SPLITS):
        keys = decisions.keys[decisions.kept & (decisions.split == place)]
        if len(keys):
            with atomic_file(folder / f"{name}.npy") as file:
                np.save(file, keys)


def copy_pairs(places: list[Path], folder: Path) -> None:
    """Copy what is known of the pairs beside their tokens: files, groups, boxes, facts."""
    for number, place in enumerate(places):
        found = read_folder(place, MANIFEST_NAME, COMPONENT)[1]["pairs.arrow"]
        with atomic_file(folder / f"pairs-{number:05}.arrow") as file, open(found, "rb") as source:
            shutil.copyfileobj(source, file)


def write_pictures(job: Job, decisions: Decisions, folder: Path) -> None:
    """Write the sample of pictures: pixels, vectors, and their pairs."""
    rows = sampled(decisions, job.options.pictures)
    owners = decisions.starts.searchsorted(rows, side="right") - 1
    pixels, vectors, pairs = [], [], []
    columns = ["key", "file_name", "caption", "group_name", "category", "boxes", "facts"]
    for owner in np.unique(owners).tolist():
        own = rows[owners == owner]
        paths = read_folder(finished(job.work, owner), MANIFEST_NAME, COMPONENT)[1]
        pixels.append(np.load(paths["pixels.npy"]))
        table = pairs_of(job.work, owner).take(pa.array(own - decisions.starts[owner]))
        vectors.append(vectors_of(table, "image_vector"))
        for row, pair in zip(own, table.select(columns).to_pylist(), strict=True):
            split, group = SPLITS[decisions.split[row]], pair.pop("group_name")
            facts = pair.pop("facts")
            pairs.append(
                {
                    **pair,
                    "split": split,
                    "group": group or pair["caption"],
                    "facts": facts and json.loads(facts),
                }
            )
    with atomic_file(folder / "pixels.npy") as file:
        np.save(file, np.concatenate(pixels))
    with atomic_file(folder / "image_vectors.npy") as file:
        np.save(file, np.concatenate(vectors))
    write_json(folder / "pictures.json", {"pairs": pairs})


def write_quarantine(job: AnyJob, shards: Sequence[int], path: Path) -> None:
    """Join the quarantine files of shards."""
    with atomic_file(path) as file:
        for number in shards:
            place = encoded(job.work, number)
            found = read_folder(place, MANIFEST_NAME, COMPONENT)[1]["quarantine.jsonl"]
            with open(found, "rb") as lines:
                shutil.copyfileobj(lines, file)


def report_of(job: Job, decisions: Decisions, manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up what the shards have counted."""
    counts: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for number in range(len(manifests)):
        found = read_folder(encoded(job.work, number), MANIFEST_NAME, COMPONENT)[0]
        counts.update(found["counts"])
        left_out.update(found["left_out_by_licence"])
    kept: dict[str, Counter[str]] = {}
    for manifest in manifests:
        for name, values in manifest["report"].items():
            kept.setdefault(name, Counter()).update(values)
    boxes = {"given": counts["boxes"], "cropped_away": counts["boxes_cropped_away"]}
    return {
        "records": counts["records"],
        "pairs": int(decisions.kept.sum()),
        "quarantined": counts["bad"],
        "captions_too_long": counts["captions_too_long"],
        **decisions.counts,
        "near_duplicates_dropped": job.options.drop_duplicates,
        "splits": dict(kept["splits"]),
        "boxes": {**boxes, "kept": kept["boxes"]["kept"]},
        "licences": dict(kept["licences"].most_common(1000)),
        "left_out_by_licence": dict(left_out.most_common(1000)),
        "caption_ids": _in_order(kept["caption_ids"]),
        "aspect_ratios": _in_order(kept["aspect_ratios"]),
    }


def _in_order(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: float(item[0].split()[0])))


def write_samples(folder: Path, tokenizers: Tokenizers) -> None:
    """Draw `report.png`: pictures as they were prepared, and through their codes."""
    place = folder / "pictures"
    pairs = json.loads((place / "pictures.json").read_text("utf-8"))["pairs"]
    rows = [row for row, pair in enumerate(pairs) if pair["split"] == "train"][:SHOWN]
    pixels = np.load(place / "pixels.npy", mmap_mode="r")[rows]
    seen = tokenizers.through(pixels)
    lines = [
        (pairs[row]["caption"], list(cells))
        for row, cells in zip(rows, zip(pixels, seen, strict=True), strict=True)
    ]
    write_sheet(folder / "report.png", lines, [["prepared", "through the codes"]])


def fingerprint_of_files(folder: Path) -> str:
    """Return a hash of the folder's manifests, which hold the hashes of the rest."""
    digest = hashlib.sha256()
    for pattern in (
        "*/*/manifest.json", "*/*/config.json", "*/*/clip_config.json", "splits/*", "pictures/*",
        "pairs/*",
    ):  # fmt: skip
        for path in sorted(folder.glob(pattern)):
            if path.relative_to(folder).parts[0] != "work":
                digest.update(f"{path.relative_to(folder)} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()
