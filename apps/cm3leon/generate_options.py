"""The command line of `apps/generate.py`; imports nothing heavy."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

SAMPLING = {
    "temperature": "divides the logits",
    "top_p": "share of the probability to draw from",
    "guidance_scale": "default: the best of the run's sweep",
    "cd_alpha": "plausibility threshold of CD-K",
}
WRITES = (".png", ".jpg", ".jpeg", ".webp")


def parse(description: str | None, arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options, or end with a message that names the wrong one.

    An option that would change nothing is an error too.
    """
    command = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = command.add_argument
    add("--run", type=Path, default=Path("runs/tiny"), help="folder of a run")
    add("--prompt", help="caption of the picture to draw or redraw")
    add("--caption", type=Path, metavar="FILE", help="picture to describe")
    add("--infill", type=Path, metavar="FILE", help="picture to redraw a part of")
    add("--mask", type=rectangle, metavar="x0,y0,x1,y1", help="part to redraw, pixels of FILE")
    add(
        "--teach", type=Path, metavar="FILE", help="picture of a new thing, to draw with in context"
    )
    add("--as", dest="name", metavar="NAME", help="what the new thing is called")
    add("--keep", action="store_true", help="remember the new thing in the run's folder")
    add("--retrieve", type=int, choices=(0, 1, 2), help="documents to retrieve")
    add("--sampler", choices=("top-p", "cd-k", "mixed"), help="default: as the run's recipe")
    for name, text in SAMPLING.items():
        add(f"--{name.replace('_', '-')}", type=float, help=text)
    add("--cd-k", type=int, help="k of CD-K")
    add("--candidates", type=int, default=8, help="how many to draw")
    add("--seed", type=int, default=0, help="of the first candidate")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--out", type=output, metavar="FILE", help="picture file to write")
    given = command.parse_args(arguments)
    problem = problem_of(given)
    if problem:
        command.error(problem)
    return given


def problem_of(given: argparse.Namespace) -> str | None:
    """Return what is wrong with options that are each right, or None."""
    if given.caption and (given.prompt or given.infill):
        return "--caption stands alone: wanted neither --prompt nor --infill beside it"
    if not (given.caption or given.prompt or given.infill or given.keep):
        return "wanted --prompt TEXT, --caption FILE, or --infill FILE --mask x0,y0,x1,y1"
    if bool(given.infill) != bool(given.mask):
        return "--infill FILE and --mask x0,y0,x1,y1 go together, got one of them"
    if (given.caption or given.infill) and (given.guidance_scale or given.sampler):
        return "--guidance-scale and --sampler are for --prompt without --infill"
    if given.caption and given.out:
        return "--out does nothing with --caption, which writes no picture"
    if bool(given.teach) != bool(given.name):
        return "--teach FILE and --as NAME go together, got one of them"
    if given.keep and not given.teach:
        return "--keep wants --teach FILE --as NAME"
    if given.teach and given.retrieve == 0:
        return "--teach does nothing with --retrieve 0"
    if given.candidates < 1:
        return f"--candidates: wanted at least 1, got {given.candidates}"
    return None


def rectangle(text: str) -> tuple[int, ...]:
    """Return the numbers of `--mask`."""
    if re.fullmatch(r"\d+,\d+,\d+,\d+", text):
        return tuple(map(int, text.split(",")))
    raise argparse.ArgumentTypeError(f"wanted x0,y0,x1,y1 in pixels, got {text!r}")


def output(text: str) -> Path:
    """Return the path of `--out`, which can be written before anything is drawn."""
    path = Path(text)
    if path.suffix.lower() not in WRITES:
        raise argparse.ArgumentTypeError(f"wanted a name with one of {WRITES}, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent}: no such folder")
    return path
