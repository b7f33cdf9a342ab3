"""The command line `cm3-imagetok`: pictures to codes and back, and checkpoints.

A failure is one line on stderr, with exit status 1 (`cm3_imagetok.exit_status`). PyTorch is
imported when a command runs, not for `--help`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cm3_imagetok.exit_status import exit_status
from cm3_imagetok.layouts import OURS, WRITTEN


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: _run(options), "cm3-imagetok")


def _run(options: argparse.Namespace) -> None:
    from cm3_imagetok import commands

    run = {
        "encode": commands.encode,
        "decode": commands.decode,
        "reconstruct": commands.reconstruct,
        "import": commands.import_checkpoint,
        "info": commands.info,
    }[options.command]
    run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cm3-imagetok", description="Pictures to codes and back.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, words: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=words, description=words)

    encode = command("encode", "write the codes of pictures: NAME.npy, (h, w) int32")
    decode = command("decode", "write the pictures of files of codes: NAME.png")
    reconstruct = command(
        "reconstruct", "write pictures beside their reconstructions, with PSNR: NAME.png"
    )
    for added in (encode, decode, reconstruct):
        added.add_argument("model", help="a saved VQGAN: our folder, or a foreign checkpoint")
        if added is decode:
            added.add_argument(
                "codes", type=Path, nargs="+", help=".npy files or folders of encode"
            )
        else:
            added.add_argument("pictures", type=Path, nargs="+", help="picture files or folders")
            added.add_argument("--size", type=_positive, help="side in pixels [the model's]")
            added.add_argument(
                "--batch-size", type=_positive, default=8, help="pictures at once [8]"
            )
            added.add_argument(
                "--on-error",
                choices=("raise", "skip"),
                default="raise",
                help="stop at a broken picture, or go on and count [raise]",
            )
        added.add_argument(
            "--out",
            type=Path,
            required=True,
            help="folder to write to; replaces only what was written so",
        )
        added.add_argument("--device", default="cpu", help="torch device [cpu]")
    added = command("import", "print the contents of a foreign checkpoint; with --out, convert it")
    added.add_argument("checkpoint", help=".ckpt, .pt, .safetensors, or a folder of safetensors")
    added.add_argument("--image-size", type=_positive, help="side in pixels, if no preset tells it")
    added.add_argument("--out", type=Path, help="folder, or file for layout taming")
    added.add_argument(
        "--layout", choices=(OURS, *WRITTEN), default=OURS, help=f"of --out [{OURS}]"
    )
    added = command("info", "print the shape and size of a model or preset")
    added.add_argument("model", help="a preset's name, our folder, or a foreign checkpoint")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"wanted at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
