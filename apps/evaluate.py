"""Evaluate any run: drawing, reconstruction, perplexity, captions, answers, edits, boxes.

`python apps/evaluate.py --run runs/tiny` asks for what `apps/configs/evaluate.yaml` names, and
writes `result.json`, `table.md` and `pictures.png` to `evaluation` in the run's folder. What was
made is kept: a killed evaluation goes on with the same command. `--compare RESULT RESULT` holds two
results side by side. What each figure means: docs/evaluation.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cm3_imagetok.exit_status import exit_status
from cm3leon.recipe_file import read_evaluate_command

DEFAULT = Path(__file__).parent / "configs" / "evaluate.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    recipe, compared, out = read_evaluate_command(__doc__, DEFAULT, arguments)
    if compared:
        from cm3leon.evaluation.comparison import compare

        print(compare(*compared, out))
        return 0

    from cm3leon.device import make_deterministic
    from cm3leon.evaluation.examine import evaluate, table_of

    make_deterministic()
    result = evaluate(recipe, print)
    print(table_of(result))
    print(f"Look at {recipe.folder / 'pictures.png'}; the result: {recipe.folder / 'result.json'}")
    return 0


if __name__ == "__main__":
    failures = (OSError, ValueError, FloatingPointError)
    sys.exit(
        exit_status(
            main, "error", failures=failures, interrupted="stopped; the same command goes on"
        )
    )
