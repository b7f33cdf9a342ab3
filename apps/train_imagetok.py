"""Train the image tokenizer of a recipe alone, and say how good it is on held-out pictures.

`python apps/train_imagetok.py` makes the first stages of `apps/pretrain.py` in the same folder, so
that job finds them done. Same options: `--config`, dotted overrides, `--print_config`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cm3_imagetok.exit_status import exit_status
from cm3leon.recipe_file import read_command

DEFAULT = Path(__file__).parent / "configs" / "tiny.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    recipe = read_command(__doc__, DEFAULT, arguments)

    from cm3leon.device import make_deterministic
    from cm3leon.evaluation.tokenizer import image_tokenizer_figures
    from cm3leon.job import start
    from cm3leon.tokenizer_stages import make_tokenizers

    make_deterministic()
    tokenizers, pictures = make_tokenizers(start(recipe))
    figures = image_tokenizer_figures(tokenizers, pictures, recipe.evaluation.inception)
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    failures = (OSError, ValueError, FloatingPointError)
    sys.exit(
        exit_status(
            main, "error", failures=failures, interrupted="stopped; the same command goes on"
        )
    )
