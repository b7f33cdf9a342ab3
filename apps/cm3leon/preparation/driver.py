"""Raw pairs to a prepared folder, from beginning to end.

copy the parts -> encode each shard -> decide of all pairs -> memory bank -> finish each shard ->
join, report, and `prepared.json` last. The same call goes on after a kill: a sealed shard is not
repeated, and what is made depends on no worker's number, order or death.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cm3_retrieval import MemoryBank
from cm3_retrieval.bank.shards import build_from_shards
from cm3_retrieval.neighbours.calibration import calibrated
from cm3_retrieval.picture_file import shown
from cm3_retrieval.sealed_folder import MANIFEST_NAME
from cm3_train import progress_bar
from cm3_train.artifact import write_json
from cm3leon import VERSION
from cm3leon.data.pairs import DataError
from cm3leon.fingerprint import fingerprint_of
from cm3leon.preparation.assembly import assemble, write_quarantine
from cm3leon.preparation.decisions import Decisions, decide, encoded, sampled
from cm3leon.preparation.engines import Engine, engine_of
from cm3leon.preparation.finishing import documents_of
from cm3leon.preparation.inputs import begun, copy_parts, fingerprint_of_inputs
from cm3leon.preparation.job import AnyJob, Job, Preparation
from cm3leon.preparation.plan import memory_plan
from cm3leon.preparation.source import Shard, open_source
from cm3leon.preparation.speed import SPEED_FILE, Clock, speed
from cm3leon.preparation.worker import PLAN, finished, is_sealed, open_models, settle_torch
from cm3leon.prepared_folder import PREPARED_FILE
from cm3leon.recipe import Recipe
from cm3leon.recipe_file import save_recipe
from cm3leon.stages import lock_folder, read_object

Say = Callable[[str], None]


def prepare(recipe: Recipe, options: Preparation, say: Say = print) -> dict[str, Any]:
    """Make a prepared folder, or go on with it; gives the report.

    Args:
        recipe: Size, views, lengths, shares, strategy, seed, and the classes of named parts.
        options: The source and the rest.
        say: Takes one line for the user.

    Raises:
        BlockingIOError: Another process works in the folder.
        DataError: Too many records are unusable, or too few are left.
        FileNotFoundError: There is no source, or a part is neither made nor named.
        RuntimeError: The workers of one shard died in every attempt.
        ValueError: The folder belongs to another job, or a part does not fit.
    """
    folder = options.folder
    lock_folder(folder)
    recipe = replace(
        recipe,
        runs=folder.parent,
        name=folder.name,
        data=replace(recipe.data, folder=None, prepared=None),
    )
    source = open_source(options.source, folder / "work")
    inputs = fingerprint_of_inputs(recipe, options)
    begun(folder, inputs=inputs)
    copy_parts(recipe, options)
    trust = options.trust or options.parts is None  # who gives a recipe by hand knows it
    settle_torch()
    models = open_models(recipe, trust=trust)
    fingerprint = fingerprint_of(inputs, models[0].vocabulary.sha256, models[1].encoder_id)
    job = Job(recipe=recipe, options=options, fingerprint=fingerprint, trust=trust)
    if begun(folder, inputs=inputs, job=fingerprint):
        say("prepared: done before, kept")
        shutil.rmtree(job.work, ignore_errors=True)  # a kill may have left it
        return read_object(folder / "report.json")
    save_recipe(replace(recipe, runs=Path("runs"), name="prepared"), folder)
    shards = source.shards()
    if not shards:
        raise DataError(f"{shown(options.source)}: wanted at least one record, got none")
    for line in memory_plan(job, shards, *models):
        say(line)
    clock = Clock()
    with working(job) as engine:
        encode_all(job, shards, engine, say)
        clock.lap("encode")
        decisions = decide(
            job.work,
            len(shards),
            near_bits=options.near_bits,
            drop_duplicates=options.drop_duplicates,
            **recipe.data.shares,
            seed=recipe.seed,
        )
        decisions.save(job.work / "decisions")
        clock.lap("decide")
        bank = folder / "retrieval" / "bank"
        build_from_shards(
            job.work / "bank",
            len(shards),
            lambda number: documents_of(job, number),
            models[1],
            bank,
        )
        write_plan(job, decisions, models[1].encoder_id)
        clock.lap("bank")
        run_shards(job, "finish", shards, engine)
        clock.lap("finish")
    report = assemble(job, shards, decisions, *models)
    clock.lap("join")
    write_json(folder / SPEED_FILE, speed(job, len(shards), clock.laps))
    made = {**report["prepared"], "version": VERSION, "inputs": inputs, "job": fingerprint}
    write_json(folder / PREPARED_FILE, made)
    shutil.rmtree(job.work)
    return report["report"]


@contextmanager
def working(job: AnyJob) -> Iterator[Engine]:
    """Keep workers for a `with` block."""
    engine = engine_of(job)
    try:
        yield engine
    finally:
        engine.close()


@dataclass
class Tally:
    """Records and quarantined ones so far."""

    records: int = 0
    bad: int = 0
    shards: list[int] = field(default_factory=list)


def encode_all(job: AnyJob, shards: list[Shard], engine: Engine, say: Say) -> None:
    """Encode the shards that are not sealed yet, and write `quarantine.jsonl`.

    A rotten set is stopped as soon as it is surely one.

    Raises:
        DataError: More than `max_bad` of the records cannot be used.
    """
    tally, share, path = Tally(), job.options.max_bad, job.options.folder / "quarantine.jsonl"

    def count(number: int) -> None:
        counts = read_object(encoded(job.work, number) / MANIFEST_NAME, "counts")["counts"]
        tally.records += counts.get("records", 0)
        tally.bad += counts["bad"]
        tally.shards.append(number)
        # the shards to come may all be good: as many records as those so far, at their rate
        expected = tally.records * len(shards) / len(tally.shards)
        if tally.bad > share * max(expected, 1):
            write_quarantine(job, sorted(tally.shards), path)
            with open(path, encoding="utf-8") as lines:
                first = lines.readline().strip()
            raise DataError(
                f"max-bad: wanted at most {share:.2%} unusable records, got {tally.bad} of "
                f"{tally.records} in {len(tally.shards)} of {len(shards)} shards; they are in "
                f"{shown(path)}, the first: {first}"
            )

    run_shards(job, "encode", shards, engine, count)
    write_quarantine(job, sorted(tally.shards), path)
    say(f"encoded: {tally.records} records, {tally.bad} quarantined")


def run_shards(
    job: AnyJob,
    task: str,
    shards: list[Shard],
    engine: Engine,
    count: Callable[[int], None] = lambda number: None,
) -> None:
    """Do a task for every shard that is not sealed.

    Raises:
        RuntimeError: The workers of one shard died in every attempt.
        ValueError: A shard cannot be worked on, or a sealed one is of another part of the source.
    """
    place = encoded if task == "encode" else finished
    numbers = range(len(shards))
    sealed = [n for n in numbers if is_sealed(place(job.work, n), job.fingerprint, shards[n])]
    for number in sealed:
        count(number)
    done, missing = len(sealed), sorted(set(numbers) - set(sealed))
    with progress_bar(task, "shard", done=done) as progress:

        def report(number: int) -> None:
            nonlocal done
            count(number)
            done += 1
            progress(done, len(shards))

        engine.run(task, {n: shards[n] for n in missing}, report)


def write_plan(job: Job, decisions: Decisions, encoder_id: str) -> None:
    """Note for the second pass the strategy, and whose pixels are kept, by shard."""
    bank = MemoryBank.load(job.options.folder / "retrieval" / "bank", encoder_id, mmap=True)
    rules = calibrated(bank, job.recipe.retrieval.strategy)
    rows = sampled(decisions, job.options.pictures)
    owners = decisions.starts.searchsorted(rows, side="right") - 1
    pixels: dict[str, list[int]] = {}
    for owner, row in zip(owners.tolist(), rows.tolist(), strict=True):
        pixels.setdefault(str(owner), []).append(int(decisions.keys[row]))
    write_json(job.work / PLAN, {"rules": asdict(rules), "pixels": pixels})
