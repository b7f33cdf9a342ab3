"""Train the whole system on captioned pictures, and report how good it is.

`python apps/pretrain.py` makes `runs/tiny` from the embedded pictures in about 15 minutes on two
CPU cores; `--minutes 5` or `60` makes it worse or better. Your own pictures: `--data.folder FOLDER`
(metadata.jsonl with file_name and text). A stopped or killed run goes on with the same command;
what is finished is kept.
"""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from cm3_imagetok.exit_status import exit_status
from cm3leon.recipe_file import read_command, save_recipe

START = time.time()
DEFAULT = Path(__file__).parent / "configs" / "tiny.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    recipe = read_command(__doc__, DEFAULT, arguments)

    from cm3leon import run
    from cm3leon.device import make_deterministic
    from cm3leon.evaluation.report import finish, table
    from cm3leon.job import start

    make_deterministic()
    job = start(recipe)
    if job.stages.first:
        save_recipe(job.recipe, recipe.folder)
    made = run.make_parts(job)
    if not job.stages.first:  # the report is one process's work
        return 0
    run.make_report(job, *made)
    machine = {"device": str(job.device), "precision": job.precision}
    report = finish(recipe.folder, job.stages.done, time.time() - START, machine)
    print(table(report))
    pairs = made[1].pairs
    held_out = shlex.quote(pairs.captions[pairs.rows("test")[0]])
    print(
        f"Look at {recipe.folder / 'samples.png'}; then draw: "
        f"python apps/generate.py --run {recipe.folder} --prompt {held_out}"
    )
    return 0


if __name__ == "__main__":
    failures = (OSError, ValueError, FloatingPointError)
    sys.exit(
        exit_status(
            main, "error", failures=failures, interrupted="stopped; the same command goes on"
        )
    )
