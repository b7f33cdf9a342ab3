"""Draw, caption and redraw pictures with a trained run, and teach it new things.

    python apps/generate.py --prompt "purple umbrella on yellow" --best picture.png
    python apps/generate.py --caption picture.png
    python apps/generate.py --infill picture.png --mask 16,16,48,48 --prompt "red hat"
    python apps/generate.py --teach zorp.png --as zorp --prompt "blue zorp on yellow"
    python apps/generate.py --run runs/tiny-sft --edit picture.png --instruction "make it blue"
    python apps/generate.py --run runs/tiny-sft --structure canny picture.png --prompt "red fox"
    python apps/generate.py --run runs/tiny-sft --boxes "fox 10,10,120,120; apple 130,90,250,250"
    python apps/generate.py --run runs/tiny-sft --write K
    python apps/generate.py --run runs/tiny-sft --ask picture.png "what colour is it?"

Writes a PNG of all candidates, the one that CLIP likes best first, and with --best that one alone.
--infill alone describes first.
--teach reads one picture into the memory that documents are retrieved from; nothing is trained.
With --keep the run remembers it.

A run's folder is data, but its recipe may name code: that of others runs with --trust alone.
"""

from __future__ import annotations

import sys

from cm3_imagetok.exit_status import exit_status
from cm3leon.generate_options import FOLLOWING, SAMPLING, parse


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    given = parse(__doc__, arguments)

    from cm3leon import generate
    from cm3leon.parts import open_parts

    if given.command is not None:
        from cm3leon.generate_instructions import follow
        from cm3leon.tuned import open_tuned

        parts = open_parts(given.run, given.device, dtype=given.dtype, trust=given.trust)
        follow(
            parts,
            open_tuned(given.run),
            given.command,
            vars(given),
            candidates=given.candidates,
            seed=given.seed,
            changes={name: getattr(given, name) for name in FOLLOWING},
            out=given.out,
            best=given.best,
        )
        return 0
    picture = generate.open_picture(given.infill or given.caption, given.mask)
    lesson = generate.open_picture(given.teach)
    parts = generate.taught(
        open_parts(given.run, given.device, dtype=given.dtype, trust=given.trust),
        given.run,
        lesson,
        given.name,
        keep=given.keep,
    )
    options = {"candidates": given.candidates, "retrieved": given.retrieve, "seed": given.seed}
    options["sampler"] = given.sampler
    options["changes"] = {name: getattr(given, name) for name in (*SAMPLING, "cd_k")}
    files = {"out": given.out, "best": given.best}
    if picture is not None:
        caption = given.prompt or generate.describe_picture(parts, picture, **options)
        if given.infill:
            generate.redraw_picture(parts, picture, given.mask, caption, **files, **options)
    elif given.prompt:
        generate.draw_prompt(parts, given.prompt, **files, **options)
    return 0


if __name__ == "__main__":
    failures = (OSError, ValueError, FloatingPointError)
    sys.exit(exit_status(main, "error", failures=failures, interrupted="stopped"))
