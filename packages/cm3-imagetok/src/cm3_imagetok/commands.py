"""What the subcommands of `cm3-imagetok` do; `cm3_imagetok.cli` reads their options."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from cm3_imagetok.checkpoint import save_vqgan
from cm3_imagetok.config import VQGANConfig
from cm3_imagetok.exchange import export_vqgan, import_vqgan
from cm3_imagetok.layouts import OURS
from cm3_imagetok.metrics import psnr
from cm3_imagetok.output_folder import OutputFolder
from cm3_imagetok.picture_file import SUFFIXES, list_files, shown
from cm3_imagetok.presets import PRESETS
from cm3_imagetok.transforms import load_images, square, to_pixels, to_tensor
from cm3_imagetok.vqgan import VQGAN

Source = tuple[Path, Path]
"""A file, and its name in the folder that was given."""


def encode(options: argparse.Namespace) -> None:
    """Write the codes of pictures: NAME.npy, (h, w) int32."""
    sources = _pictures(options.pictures)
    out = OutputFolder(options.out, sources, ".npy")
    model = _load(options)
    done = 0
    for batch, images in _batches(options, sources, model.config):
        for source, grid in zip(batch, model.encode(images).cpu().numpy(), strict=True):
            codes = grid.astype(np.int32)
            out.write(source, lambda file, codes=codes: np.save(file, codes))
        done += len(batch)
    print(f"{done} files of codes in {shown(options.out)}")


def decode(options: argparse.Namespace) -> None:
    """Write the pictures of files of codes: NAME.png."""
    sources = _listed(options.codes, (".npy",), ".npy files")
    out = OutputFolder(options.out, sources, ".png")
    model = _load(options)
    for source, _ in _progress(sources, "decode"):
        codes = torch.from_numpy(_read_codes(source))[None].to(options.device)
        picture = Image.fromarray(to_pixels(model.decode(codes))[0])
        out.write(source, partial(picture.save, format="PNG"))
    print(f"{len(sources)} pictures in {shown(options.out)}")


def reconstruct(options: argparse.Namespace) -> None:
    """Write pictures beside their reconstructions, with PSNR: NAME.png."""
    sources = _pictures(options.pictures)
    out = OutputFolder(options.out, sources, ".png")
    model = _load(options)
    values: list[float] = []
    for batch, images in _batches(options, sources, model.config):
        decoded = model.decode(model.encode(images))
        ratios = psnr(decoded.float(), images).tolist()
        pairs = to_pixels(torch.cat([images, decoded.float()], dim=3))  # (B, H, 2 W, 3)
        for source, pair, ratio in zip(batch, pairs, ratios, strict=True):
            picture = _captioned(Image.fromarray(pair), f"PSNR {ratio:.2f} dB")
            target = out.write(source, partial(picture.save, format="PNG"))
            _say(f"{shown(target.name)}: PSNR {ratio:.2f} dB", sys.stdout)
        values += ratios
    if values:
        mean = sum(values) / len(values)
        print(f"{len(values)} pictures in {shown(options.out)}, PSNR {mean:.2f} dB on average")


def import_checkpoint(options: argparse.Namespace) -> None:
    """Print the contents of a foreign checkpoint; with --out, write it in --layout."""
    out = options.out
    if out and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out: {shown(out)} is there already; wanted a new file or folder")
    found = import_vqgan(options.checkpoint, options.image_size)
    print(found)
    if options.out and options.layout == OURS:
        save_vqgan(found.model, options.out)
    elif options.out:
        export_vqgan(found.model, options.out, options.layout)
    if options.out:
        print(f"written: {shown(options.out)} ({options.layout})")


def info(options: argparse.Namespace) -> None:
    """Print the shape and size of a model or preset."""
    if options.model in PRESETS and not Path(options.model).exists():
        model = VQGAN(PRESETS[options.model])
        print(f"preset: {options.model} (a shape, no weights)")
    else:
        found = import_vqgan(options.model)
        model = found.model
        print(found)
    config = model.config
    for field in fields(config):
        print(f"{field.name}: {getattr(config, field.name)}")
    for name, part in model.named_children():
        print(f"{name}: {sum(p.numel() for p in part.parameters()):,} parameters")
    print(f"in all: {sum(p.numel() for p in model.parameters()):,} parameters")


def _load(options: argparse.Namespace) -> VQGAN:
    return import_vqgan(options.model).model.to(options.device)


def _batches(
    options: argparse.Namespace, sources: Sequence[Source], config: VQGANConfig
) -> Iterator[tuple[list[Path], Tensor]]:
    """Yield each batch's files and pictures (B, 3, side, side); name skipped ones on stderr."""
    paths = [path for path, _ in sources]
    side, step = options.size or config.image_size, options.batch_size
    skipped = 0
    for start in _progress(range(0, len(paths), step), options.command, step, len(paths)):
        batch = paths[start : start + step]
        loaded = load_images(batch, options.on_error)
        for error in loaded.errors:
            _say(f"skipped: {error}")
        skipped += len(loaded.errors)
        if loaded.pictures:
            pixels = np.stack([np.asarray(square(p, side)) for p in loaded.pictures])
            yield [batch[row] for row in loaded.rows], to_tensor(pixels).to(options.device)
    if skipped:
        _say(f"{skipped} of {len(paths)} pictures skipped")


def _pictures(given: Sequence[Path]) -> list[Source]:
    return _listed(given, SUFFIXES, f"pictures ({', '.join(SUFFIXES)})")


def _listed(given: Sequence[Path], suffixes: tuple[str, ...], wanted: str) -> list[Source]:
    """List the given files, and what counts in the given folders."""
    found: list[Source] = []
    for path in given:
        if not path.is_dir():
            found.append((path, Path(path.name)))
            continue
        inside = list_files(path, suffixes)
        if not inside:
            raise ValueError(f"{shown(path)}: wanted {wanted}, found none")
        found += [(file, file.relative_to(path)) for file in inside]
    return found


def _read_codes(path: Path) -> np.ndarray:
    try:
        codes = np.load(path, allow_pickle=False)
        if isinstance(codes, np.ndarray) and codes.ndim == 2 and codes.dtype.kind in "iu":
            return codes.astype(np.int64)
        found = f"{codes.dtype} {codes.shape}" if isinstance(codes, np.ndarray) else "an archive"
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        found = f"something else ({error})"
    raise ValueError(f"{path}: wanted a .npy file of integers (h, w), got {found}")


def _captioned(picture: Image.Image, text: str) -> Image.Image:
    """Return the picture with a line of text below it."""
    canvas = Image.new("RGB", (picture.width, picture.height + 16), "white")
    canvas.paste(picture)
    ImageDraw.Draw(canvas).text((2, picture.height + 2), text, fill="black")
    return canvas


def _say(line: str, file: TextIO | None = None) -> None:
    """Print a line, on stderr by default; on a terminal, in place of the progress line."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print(line, file=file or sys.stderr)


def _progress(items: Sequence, label: str, step: int = 1, total: int | None = None) -> Iterator:
    """Yield the items; on a terminal, show how many are done and the time left."""
    total, start = len(items) if total is None else total, time.monotonic()
    show = sys.stderr.isatty() and len(items) > 1
    for number, item in enumerate(items):
        if show and number:
            done = number * step
            left = (time.monotonic() - start) / done * (total - done)
            bar = "#" * (20 * done // total)
            clock = f"{int(left) // 60}:{int(left) % 60:02d}"
            print(
                f"\r{label} [{bar:20}] {done}/{total}, {clock} left ",
                end="",
                file=sys.stderr,
                flush=True,
            )
        yield item
    if show:
        print(f"\r{label} [{'#' * 20}] {total}/{total}" + " " * 16, file=sys.stderr)
