"""Turn raw pairs into token shards, a memory bank and neighbour tables, at any size.

Or, with `--task`, the published files of a task into a set of instructions.

`python apps/prepare.py --source PAIRS --folder prepared/mine --parts runs/tiny`, then
`python apps/pretrain.py --data.prepared prepared/mine`. PAIRS is an imagefolder, or img2dataset's
tars or Parquet. The tokenizers and the encoder are those of the run, or of a recipe that names
classes. A stopped or killed preparation goes on with the same command.

`python apps/prepare.py --task vqa2 --from VQA --folder sets/vqa2 --parts runs/tiny`; see
docs/instruction-data.md for the tasks and their files. `--features canny,scribble,hed` in place of
`--task` makes a set for each feature of captioned pictures.
"""

from __future__ import annotations

import json
import sys

from cm3_imagetok.exit_status import exit_status
from cm3leon.preparation.command import read_options
from cm3leon.preparation.job import FeaturePreparation, Preparation, TaskPreparation


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    recipe, options, sample = read_options(__doc__, arguments)

    if sample is not None and isinstance(options, Preparation):
        from cm3leon.preparation.sample import write_sample

        count = write_sample(options, sample, recipe.seed)
        print(f"{options.folder}: {count} pairs; pretrain.py takes it as --data.folder")
        return 0

    if isinstance(options, TaskPreparation):
        from cm3leon.preparation.task_driver import prepare_task

        print(json.dumps(prepare_task(recipe, options), indent=2, ensure_ascii=False))
        print(f"Look at {options.folder / 'report.png'}")
        return 0

    if isinstance(options, FeaturePreparation):
        from cm3leon.preparation.feature_sets import prepare_features

        reports = prepare_features(recipe, options)
        print(json.dumps(reports, indent=2, ensure_ascii=False))
        print(f"made {', '.join(reports)} in {options.folder}")
        return 0

    from cm3leon.preparation.driver import prepare

    report = prepare(recipe, options)
    print(json.dumps(report, indent=2, ensure_ascii=False))
    print(f"Look at {options.folder / 'report.png'}; then train: python apps/pretrain.py "
          f"--data.prepared {options.folder}")  # fmt: skip
    return 0


if __name__ == "__main__":
    failures = (OSError, ValueError, RuntimeError)
    sys.exit(
        exit_status(
            main, "error", failures=failures, interrupted="stopped; the same command goes on"
        )
    )
