"""What a tuned run can be asked for: its tasks, and the streams of guidance that it has learnt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cm3_texttok import Task
from cm3_train.artifact import write_json
from cm3leon.instructions.sets import said_task, task_of
from cm3leon.recipe_file import read_tuning
from cm3leon.stages import read_object
from cm3leon.tuning_recipe import TuningRecipe

TASKS_FILE = "tasks.json"
"""In the decoder's folder of a tuned run."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a tuning has taught."""

    folder: Path
    tasks: Mapping[str, Task]
    recipe: TuningRecipe
    with_documents: frozenset[str] = frozenset()
    """Tasks whose records were shown behind retrieved documents."""

    def task(self, name: str) -> Task:
        """Return a task.

        Raises:
            ValueError: The run was not tuned on it.
        """
        if name not in self.tasks:
            raise ValueError(
                f"{self.folder}: wanted a run that was tuned on {name}, got one of "
                f"{', '.join(self.tasks)}"
            )
        return self.tasks[name]

    @property
    def grid(self) -> int:
        """What the places of boxes are multiples of."""
        return 1 if self.recipe.sets else self.recipe.embedded.grid


def write_tasks(folder: Path, tasks: Iterable[Task], with_documents: Iterable[str]) -> None:
    """Note the tasks of a tuning in the decoder's folder, and which were shown with documents."""
    said = {"tasks": [said_task(task) for task in tasks], "documents": [*with_documents]}
    write_json(folder / TASKS_FILE, said)


def open_tuned(folder: Path) -> Tuned:
    """Open what a run was tuned on.

    Raises:
        ValueError: It is a run, but no tuned one.
    """
    path = folder / "decoder" / TASKS_FILE
    if not path.is_file():
        raise ValueError(f"{folder}: wanted a run that apps/sft.py has tuned, got an untuned one")
    said = read_object(path, "tasks", "documents")
    tasks = [task_of(one, path) for one in said["tasks"]]
    return Tuned(
        folder=folder,
        tasks={task.name: task for task in tasks},
        recipe=read_tuning(folder),
        with_documents=frozenset(said["documents"]),
    )
