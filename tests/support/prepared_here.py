"""Preparations of tasks in this process, for tests."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cm3_texttok import PAPER_TASKS
from cm3leon.instructions.sets import SPLITS, InstructionSet
from cm3leon.preparation import examples, task_driver
from cm3leon.preparation.job import TaskPreparation
from cm3leon.preparation.task_driver import prepare_task
from cm3leon.recipe_file import read_recipe

SIZE = 32
"""Side of the pictures of the smoke recipe."""


class Inline:
    """An engine that works in this process."""

    def __init__(self, job):
        self.worker = job.worker_class()(job)

    def run(self, task, shards, finished):
        for number, shard in shards.items():
            self.worker.run(task, number, shard)
            finished(number)


def prepare_here(parted, task, source, folder, *, length=400, **options):
    """Prepare a task in this process, few examples a range; gives the report."""
    task = PAPER_TASKS[task] if isinstance(task, str) else task
    recipe = read_recipe(parted)
    recipe = replace(recipe, decoder=replace(recipe.decoder, max_length=length))
    given = {"max_bad": 1.0, "parts": parted, **options}
    options = TaskPreparation(task=task, source=source, folder=folder, **given)

    @contextmanager
    def working(job):
        yield Inline(job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_driver, "working", working)
        patch.setattr(task_driver, "lock_folder", lambda folder: None)  # would stay open
        patch.setattr(examples, "ROWS", 8)
        return prepare_task(recipe, options, lambda line: None)


def records(folder: Path) -> dict[str, list]:
    """All records by split."""
    found = {}
    for split in SPLITS:
        if (folder / split).is_dir():
            one = InstructionSet(folder, split)
            found[split] = [one.record(key) for key in one.keys.tolist()]
    return found
