"""Train the image tokenizer of a recipe alone, and say how good it is on held-out pictures.

``python apps/train_imagetok.py`` makes the first stages of ``apps/pretrain.py`` in the same folder,
so that job finds them done. Same options: ``--config``, dotted overrides, ``--print_config``.
"""

from __future__ import annotations

import json
import sys

import figures
from pairs import DataError
from pipeline import Run
from pretrain import parser, recipe_of


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    command = parser(__doc__)
    run = Run(recipe_of(command.parse_args(arguments), command))
    run.prepare_pictures()
    run.train_image_tokenizer()
    print(json.dumps(figures.image_tokenizer_figures(run), indent=2))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (DataError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
