"""Make a run of published weights of Chameleon's shape, such as Anole's, and give them back.

    python apps/published.py import Anole-7b-hf --run runs/anole --vqgan vqgan.ckpt
    python apps/sft.py --config apps/configs/sft-anole.yaml --sets '[sets/edit, sets/vqa2]'
    python apps/published.py export runs/sft-anole merged --dtype bfloat16

A folder to import is transformers' (config.json, safetensors, tokenizer.json) or Meta's and
Anole's (`models/7b`, beside `tokenizer/`). Pictures are drawn where there is a vqgan.ckpt:
transformers' layout has no part that makes pictures of codes. See docs/published-weights.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cm3_imagetok.exit_status import exit_status


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("import", help="published weights to a run").add_argument
    add("folder", type=Path, help="with the language model's weights")
    add("--run", type=Path, required=True, help="folder of the run to make")
    add("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, where it lies elsewhere")
    add("--vqgan", type=Path, metavar="FILE", help="vqgan.ckpt; default: one in FOLDER or near it")
    add("--size", type=int, help="side of a picture in pixels; default: that of the weights")
    add = commands.add_parser("export", help="a run to transformers' layout").add_argument
    add("run", type=Path, help="of published weights, or tuned from one")
    add("folder", type=Path, help="folder to write")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    given = parser.parse_args(arguments)

    import torch

    from cm3leon import published
    from cm3leon.parts import open_image_tokenizer

    if given.command == "export":
        published.export_run(given.run, given.folder, getattr(torch, given.dtype))
        print(f"wrote {given.folder}")
        return 0
    download = published.found_in(given.folder, given.tokenizer, given.vqgan, given.size)
    recipe = published.make_base(download, given.run)
    draws = open_image_tokenizer(recipe, torch.device("cpu"))
    if getattr(draws, "decoder", None) is None:
        print("It answers and reads pictures, but draws none: wanted --vqgan vqgan.ckpt to draw")
    print(
        f"Made {given.run}: pictures of {recipe.data.size} pixels, no memory bank; then: python "
        f"apps/prepare.py --task ... --parts {given.run}, python apps/sft.py --base {given.run} "
        "--replay 0 --lora.rank 16 --sets ..."
    )
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main, "error", failures=(OSError, ValueError), interrupted="stopped"))
