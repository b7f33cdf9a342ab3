"""The command line of `apps/generate.py`; imports nothing heavy."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from pathlib import Path

from cm3_decoding import SamplingConfig
from cm3leon.drawing.sampling import UNUSED
from cm3leon.instruction_options import add_options, command_of, problem_of_instruction

SAMPLING = {
    "temperature": "divides the logits",
    "top_p": "share of the probability to draw from",
    "guidance_scale": "default: the best of the run's sweep",
    "image_guidance_scale": "of documents, apart from the caption's; default: 2 behind a taught "
    "picture, otherwise none, and the streams of guidance all have the documents",
    "cd_alpha": "plausibility threshold of CD-K",
}
FOLLOWING = ("temperature", "top_p", "guidance_scale", "image_guidance_scale")
"""Those that instructions take, too."""
MOST_SEED = 2**32 - 1
DTYPES = ("float32", "bfloat16")
DTYPE_HELP = (
    "of the decoder, default: as it was saved; bfloat16 is faster where the processor has it, and "
    "draws some codes differently"
)
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
    add(
        "--sampler",
        choices=("top-p", "cd-k", "mixed", "greedy"),
        help="default: as the run's recipe for pictures, top-p for captions and redrawn parts",
    )
    for name, text in SAMPLING.items():
        add(flag(name), type=float, help=text)
    add("--cd-k", type=int, help="k of CD-K")
    add("--candidates", type=int, help="how many to draw; default: 8, of greedy 1")
    add("--seed", type=int, help="of the first candidate; default: 0")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--dtype", choices=DTYPES, help=DTYPE_HELP)
    add("--out", type=output, metavar="FILE", help="new picture file to write")
    add("--best", type=output, metavar="FILE", help="the same for the first candidate alone")
    add(
        "--trust",
        action="store_true",
        help="let the run's recipe name classes that are not ours: they may do whatever you may",
    )
    add_options(command)
    given = command.parse_args(arguments)
    given.command = command_of(given)
    problem = problem_of_instruction(given)
    problem = problem or (numbers_problem_of if given.command else problem_of)(given)
    problem = problem or sampling_problem_of(given)
    if problem:
        command.error(problem)
    if given.caption or given.infill:
        given.sampler = given.sampler or "top-p"
    if given.candidates is None:
        given.candidates = 1 if given.sampler == "greedy" else 8 if given.command is None else 4
    given.seed = given.seed or 0
    return given


def problem_of(given: argparse.Namespace) -> str | None:
    """Return what is wrong with options that are each right, or None."""
    if given.caption and (given.prompt or given.infill):
        return "--caption stands alone: wanted neither --prompt nor --infill beside it"
    if not (given.caption or given.prompt or given.infill or given.keep):
        return "wanted --prompt TEXT, --caption FILE, or --infill FILE --mask x0,y0,x1,y1"
    if bool(given.infill) != bool(given.mask):
        return "--infill FILE and --mask x0,y0,x1,y1 go together, got one of them"
    for name in ("out", "best"):
        if given.caption and getattr(given, name):
            return f"--{name} does nothing with --caption, which writes no picture"
    if bool(given.teach) != bool(given.name):
        return "--teach FILE and --as NAME go together, got one of them"
    if given.keep and not given.teach:
        return "--keep wants --teach FILE --as NAME"
    if given.retrieve == 0:
        for name in ("teach", "image_guidance_scale"):
            if getattr(given, name) is not None:
                return f"{flag(name)} does nothing with --retrieve 0"
    if not (given.prompt or given.caption or given.infill):
        drawing = ("out", "best", "retrieve", "sampler", *SAMPLING, "cd_k", "candidates", "seed")
        for name in drawing:
            if getattr(given, name) is not None:
                return f"{flag(name)} does nothing without --prompt, --caption or --infill"
    return numbers_problem_of(given)


def numbers_problem_of(given: argparse.Namespace) -> str | None:
    """Return which number is out of its range, or None."""
    if given.candidates is not None and given.candidates < 1:
        return f"--candidates: wanted at least 1, got {given.candidates}"
    if given.seed is not None and not 0 <= given.seed <= MOST_SEED:
        return f"--seed: wanted 0 to {MOST_SEED}, got {given.seed}"
    return None


def sampling_problem_of(given: argparse.Namespace) -> str | None:
    """Return what is wrong with the options of sampling, or None."""
    changes = {name: getattr(given, name) for name in (*SAMPLING, "cd_k")}
    changes = {name: value for name, value in changes.items() if value is not None}
    try:
        SamplingConfig(**changes)
    except ValueError as error:
        name, _, text = str(error).partition(":")
        return f"{flag(name)}:{text}"
    sampler = given.sampler
    if given.caption or given.infill:
        if sampler in ("cd-k", "mixed"):
            return f"--sampler {sampler} is for --prompt without --infill"
        for name in ("guidance_scale", "image_guidance_scale"):
            if name in changes:
                return f"{flag(name)} does nothing with --caption and --infill"
        sampler = sampler or "top-p"
    for name in changes:
        if name in UNUSED.get(sampler or "", ()):
            return f"{flag(name)} does nothing with --sampler {sampler}"
    if sampler == "mixed" and given.candidates == 1:
        return "--candidates: wanted at least 2 with --sampler mixed, got 1"
    if sampler == "greedy" and given.seed is not None:
        return "--seed does nothing with --sampler greedy"
    if sampler == "greedy" and given.candidates not in (None, 1):
        return f"--candidates: wanted 1 with --sampler greedy, got {given.candidates} equal ones"
    return None


def flag(name: str) -> str:
    """Return an option as it is typed."""
    return f"--{name.replace('_', '-')}"


def rectangle(text: str) -> tuple[int, ...]:
    """Return the numbers of `--mask`."""
    if re.fullmatch(r"\d+,\d+,\d+,\d+", text):
        x0, y0, x1, y1 = map(int, text.split(","))
        if x0 < x1 and y0 < y1:
            return x0, y0, x1, y1
    raise argparse.ArgumentTypeError(
        f"wanted x0,y0,x1,y1 in pixels, x0 < x1 and y0 < y1, got {text!r}"
    )


def output(text: str) -> Path:
    """Return the path of `--out`, once a file could be made there: what is drawn is not lost."""
    path = Path(text)
    if path.suffix.lower() not in WRITES:
        raise argparse.ArgumentTypeError(f"wanted a name with one of {WRITES}, got {text!r}")
    if os.path.lexists(path):
        raise argparse.ArgumentTypeError(f"{text!r} is there already; wanted a new file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent}: no such folder")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path.parent}: {error.strerror}") from None
