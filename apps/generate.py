"""Draw, caption and redraw pictures with a trained run.

    python apps/generate.py --prompt "red apple" --candidates 8
    python apps/generate.py --caption picture.png
    python apps/generate.py --infill picture.png --mask 16,16,48,48 --prompt "a red hat"

Writes a PNG of all candidates, the one that CLIP likes best first. --infill alone describes first.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from cm3_imagetok.exit_status import exit_status

SAMPLING = {
    "temperature": "divides the logits",
    "top_p": "share of the probability to draw from",
    "guidance_scale": "default: the best of the run's sweep",
    "cd_alpha": "plausibility threshold of CD-K",
}


def rectangle(text: str) -> tuple[int, ...]:
    """Return the numbers of `--mask`."""
    if re.fullmatch(r"\d+,\d+,\d+,\d+", text):
        return tuple(map(int, text.split(",")))
    raise argparse.ArgumentTypeError(f"wanted x0,y0,x1,y1 in pixels, got {text!r}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options, or end with a message that names the wrong one."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = command.add_argument
    add("--run", type=Path, default=Path("runs/tiny"), help="folder of a run")
    add("--prompt", help="caption of the picture to draw or redraw")
    add("--caption", type=Path, metavar="FILE", help="picture to describe")
    add("--infill", type=Path, metavar="FILE", help="picture to redraw a part of")
    add("--mask", type=rectangle, metavar="x0,y0,x1,y1", help="part to redraw, pixels of FILE")
    add("--retrieve", type=int, choices=(0, 1, 2), help="documents to retrieve")
    add("--sampler", choices=("top-p", "cd-k", "mixed"), help="default: as the run's recipe")
    for name, text in SAMPLING.items():
        add(f"--{name.replace('_', '-')}", type=float, help=text)
    add("--cd-k", type=int, help="k of CD-K")
    add("--candidates", type=int, default=8, help="how many to draw")
    add("--seed", type=int, default=0, help="of the first candidate")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--out", type=Path, help="PNG to write")
    given = command.parse_args(arguments)
    if given.caption and (given.prompt or given.infill):
        command.error("--caption stands alone: wanted neither --prompt nor --infill beside it")
    if not (given.caption or given.prompt or given.infill):
        command.error("wanted --prompt TEXT, --caption FILE, or --infill FILE --mask x0,y0,x1,y1")
    if given.infill and not given.mask:
        command.error("--infill wants --mask x0,y0,x1,y1")
    if (given.caption or given.infill) and (given.guidance_scale or given.sampler):
        command.error("--guidance-scale and --sampler are for --prompt without --infill")
    return given


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    given = parse(arguments)

    from cm3leon.generate import describe_picture, draw_prompt, open_picture, redraw_picture
    from cm3leon.parts import open_parts

    picture = open_picture(given.infill or given.caption)
    parts = open_parts(given.run, given.device)
    options = {"candidates": given.candidates, "retrieved": given.retrieve, "seed": given.seed}
    options["changes"] = {name: getattr(given, name) for name in (*SAMPLING, "cd_k")}
    if picture is None:
        draw_prompt(parts, given.prompt, sampler=given.sampler, out=given.out, **options)
        return 0
    caption = given.prompt or describe_picture(parts, picture, **options)
    if given.infill:
        redraw_picture(parts, picture, given.mask, caption, out=given.out, **options)
    return 0


if __name__ == "__main__":
    failures = (OSError, ValueError, FloatingPointError)
    sys.exit(exit_status(main, "error", failures=failures, interrupted="stopped"))
