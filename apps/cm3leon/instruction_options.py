"""The options of `apps/generate.py` that follow instructions; imports nothing heavy.

Each of them stands alone: an option beside it that would change nothing is an error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

PICTURES = {
    "edit": ("instruction",),
    "structure": ("prompt",),
    "boxes": ("prompt",),
    "write": (),
}
"""Options that ask for a picture, and those that go with each alone."""
NEEDED = {"edit": "instruction", "structure": "prompt"}
BELONGS = {"instruction": "edit", "feature_file": "structure", "feature_weights": "structure"}
"""Options that mean nothing without another one."""
FEATURES = ("canny", "hed", "openpose", "depth", "normals", "segmentation", "scribble")
WEIGHTLESS = ("canny", "scribble")
"""Features that no network finds."""
_DRAWING = ("temperature", "top_p", "guidance_scale", "candidates", "seed", "out", "best")


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options to a command line."""
    group = command.add_argument_group("of a run that apps/sft.py has tuned")
    add = group.add_argument
    add("--edit", type=Path, metavar="FILE", help="picture to edit by --instruction")
    add("--instruction", metavar="TEXT", help='what to change, such as "make it blue"')
    add(
        "--structure",
        nargs=2,
        metavar=("FEATURE", "FILE"),
        help="picture whose edges, pose, ... --prompt is drawn by; a file of the feature itself "
        "with --feature-file",
    )
    add(
        "--feature-file",
        action="store_true",
        help="FILE is the feature, not a picture to find it in",
    )
    add(
        "--feature-weights",
        type=Path,
        metavar="PATH",
        help="local weights of a feature that a network finds",
    )
    add(
        "--boxes",
        metavar="BOXES",
        help='"fox 10,10,90,120; red apple 120,60,250,200": what to draw where, x0,y0,x1,y1 in '
        "0..255 whatever the picture's size; --prompt says more",
    )
    add("--write", metavar="TEXT", help="what to write")
    add("--ask", nargs=2, metavar=("FILE", "QUESTION"), help="question about a picture")
    add("--long", action="store_true", help="describe --caption's picture at length")


def command_of(given: argparse.Namespace) -> str | None:
    """Return which of these commands is given, None if none is."""
    names = [name for name in (*PICTURES, "ask") if getattr(given, name) is not None]
    if given.long:
        names.append("long")
    return names[0] if names else None


def problem_of_instruction(given: argparse.Namespace) -> str | None:
    """Return what is wrong with the options of such a command, or None."""
    command = command_of(given)
    for name, other in BELONGS.items():
        if getattr(given, name) and command is None:
            return f"--{name.replace('_', '-')} goes with --{other}"
    if command is None:
        return None
    own = {command, *PICTURES.get(command, ())}
    if command in PICTURES:
        own |= {*_DRAWING}
    if command == "edit":
        own.add("image_guidance_scale")
    if command in ("ask", "long"):
        own.add("retrieve")
    if command == "structure":
        own |= {"feature_weights", "feature_file"}
    if command == "long":
        own.add("caption")
        if given.caption is None:
            return "--long wants --caption FILE"
    for name, value in vars(given).items():
        if name in own or name in ("run", "device", "dtype", "trust", "command"):
            continue
        if value is None or value is False:
            continue
        flag = f"--{name.replace('_', '-')}".replace("--name", "--as")
        return f"{flag} does nothing with --{command}"
    needed = NEEDED.get(command)
    if needed and getattr(given, needed) is None:
        return f"--{command} wants --{needed} TEXT"
    for name in ("instruction", "prompt", "write"):
        value = getattr(given, name)
        if value is not None and not value.strip():
            return f"--{name}: wanted a text, got {value!r}"
    if given.ask is not None and not given.ask[1].strip():
        return f"--ask: wanted a question, got {given.ask[1]!r}"
    return problem_of_feature(given) if command == "structure" else None


def problem_of_feature(given: argparse.Namespace) -> str | None:
    """Return what is wrong with the options of `--structure`, or None."""
    name = given.structure[0]
    if name not in FEATURES:
        return f"--structure: wanted one of {FEATURES}, got {name!r}"
    if given.feature_weights is not None and given.feature_file:
        return "--feature-weights does nothing with --feature-file"
    if given.feature_weights is not None and name in WEIGHTLESS:
        return f"--feature-weights does nothing with --structure {name}"
    return None
