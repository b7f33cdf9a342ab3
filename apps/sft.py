"""Tune a pretrained run on instructions: edit, draw by boxes and guides, answer (paper 4).

`python apps/sft.py` tunes `runs/tiny` on the embedded instructions, in about 20 minutes on two CPU
cores, and writes `runs/tiny-sft`: `report.json` and a sheet of edits, scenes and answers. Your own:
`apps/prepare.py --task` makes sets, `--sets` names them. A stopped or killed tuning goes on with
the same command.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from cm3_imagetok.exit_status import exit_status
from cm3leon.recipe_file import TUNING_FILE, read_tuning_command, save_recipe

START = time.time()
DEFAULT = Path(__file__).parent / "configs" / "sft-tiny.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    recipe = read_tuning_command(__doc__, DEFAULT, arguments)

    from cm3leon import tuning
    from cm3leon.device import make_deterministic
    from cm3leon.evaluation.report import finish, table

    make_deterministic()
    made = tuning.begin(recipe)
    if made.job.stages.first:
        save_recipe(made.job.recipe, recipe.folder)
        save_recipe(recipe, recipe.folder, TUNING_FILE)
    sets = tuning.make_tuned(made)
    if not made.job.stages.first:  # the report is one process's work
        return 0
    if recipe.sets:
        print(f"tuned: {recipe.folder}")
        return 0
    tuning.make_report(made, sets)
    machine = {"device": str(made.job.device), "precision": made.job.precision}
    done = made.job.stages.done
    print(table(finish(recipe.folder, done, time.time() - START, machine, ("samples.png",))))
    print(
        f"Look at {recipe.folder / 'samples.png'}; then try: python apps/generate.py --run "
        f'{recipe.folder} --edit PICTURE --instruction "make it blue"'
    )
    return 0


if __name__ == "__main__":
    failures = (OSError, ValueError, FloatingPointError)
    sys.exit(
        exit_status(
            main, "error", failures=failures, interrupted="stopped; the same command goes on"
        )
    )
