"""What the subcommands of `cm3-imagetok` do; `cm3_imagetok.cli` reads their options."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from cm3_imagetok.artifact import atomic_file
from cm3_imagetok.checkpoint import save_vqgan
from cm3_imagetok.config import VQGANConfig
from cm3_imagetok.exchange import export_vqgan, import_vqgan
from cm3_imagetok.layouts import OURS
from cm3_imagetok.metrics import psnr
from cm3_imagetok.presets import PRESETS
from cm3_imagetok.transforms import ImageError, load_images, square, to_pixels, to_tensor
from cm3_imagetok.vqgan import VQGAN


def encode(options: argparse.Namespace) -> None:
    """Write the codes of pictures: NAME.npy, (h, w) int32."""
    model = _load(options)
    done = 0
    for targets, images in _batches(options, model.config, ".npy"):
        for target, codes in zip(targets, model.encode(images).cpu().numpy(), strict=True):
            with atomic_file(target) as file:
                np.save(file, codes.astype(np.int32))
        done += len(targets)
    print(f"{done} files of codes in {options.out}")


def decode(options: argparse.Namespace) -> None:
    """Write the pictures of files of codes: NAME.png."""
    model = _load(options)
    targets = _targets(options.codes, options.out, ".png")
    for source in _progress(options.codes, "decode"):
        codes = torch.from_numpy(_read_codes(source))[None].to(options.device)
        _write_picture(targets[source], Image.fromarray(to_pixels(model.decode(codes))[0]))
    print(f"{len(targets)} pictures in {options.out}")


def reconstruct(options: argparse.Namespace) -> None:
    """Write pictures beside their reconstructions, with PSNR: NAME.png."""
    model = _load(options)
    values: list[float] = []
    for targets, images in _batches(options, model.config, ".png"):
        decoded = model.decode(model.encode(images))
        ratios = psnr(decoded.float(), images).tolist()
        pairs = to_pixels(torch.cat([images, decoded.float()], dim=3))  # (B, H, 2 W, 3)
        for target, pair, ratio in zip(targets, pairs, ratios, strict=True):
            _write_picture(target, _captioned(Image.fromarray(pair), f"PSNR {ratio:.2f} dB"))
            print(f"{target.name}: PSNR {ratio:.2f} dB")
        values += ratios
    if values:
        mean = sum(values) / len(values)
        print(f"{len(values)} pictures in {options.out}, PSNR {mean:.2f} dB on average")


def import_checkpoint(options: argparse.Namespace) -> None:
    """Print the contents of a foreign checkpoint; with --out, write it in --layout."""
    found = import_vqgan(options.checkpoint, options.image_size)
    print(found)
    if options.out and options.layout == OURS:
        save_vqgan(found.model, options.out)
    elif options.out:
        export_vqgan(found.model, options.out, options.layout)
    if options.out:
        print(f"written: {options.out} ({options.layout})")


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
    options: argparse.Namespace, config: VQGANConfig, ending: str
) -> Iterator[tuple[list[Path], Tensor]]:
    """Yield each batch's targets and pictures (B, 3, side, side); name skipped ones on stderr."""
    sources = _files(options.pictures)
    targets = _targets(sources, options.out, ending)
    side, step = options.size or config.image_size, options.batch_size
    skipped = 0
    for start in _progress(range(0, len(sources), step), options.command, step, len(sources)):
        batch = sources[start : start + step]
        loaded = load_images(batch, options.on_error)
        for error in loaded.errors:
            print(f"skipped: {error}", file=sys.stderr)
        skipped += len(loaded.errors)
        if loaded.pictures:
            pixels = np.stack([np.asarray(square(p, side)) for p in loaded.pictures])
            yield [targets[batch[row]] for row in loaded.rows], to_tensor(pixels).to(options.device)
    if skipped:
        print(f"{skipped} of {len(sources)} pictures skipped", file=sys.stderr)


def _files(given: Sequence[Path]) -> list[Path]:
    """List the given files and those of the given folders by name, but no hidden ones."""
    files: list[Path] = []
    for path in given:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        files += [file for file in inside if file is path or file.name[0] != "."]
    if not files:
        raise ImageError(f"{given[0]}: wanted pictures, got an empty folder")
    return files


def _targets(sources: Sequence[Path], folder: Path, ending: str) -> dict[Path, Path]:
    """Map each source to the file for its result; refuse two sources that would share one."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: dict[str, Path] = {}
    for source in sources:
        other = taken.setdefault(source.stem, source)
        if other != source:
            raise ValueError(f"{other} and {source} would both become {source.stem}{ending}")
    return {source: folder / f"{source.stem}{ending}" for source in sources}


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


def _write_picture(target: Path, picture: Image.Image) -> None:
    with atomic_file(target) as file:
        picture.save(file, "PNG")


def _captioned(picture: Image.Image, text: str) -> Image.Image:
    """Return the picture with a line of text below it."""
    canvas = Image.new("RGB", (picture.width, picture.height + 16), "white")
    canvas.paste(picture)
    ImageDraw.Draw(canvas).text((2, picture.height + 2), text, fill="black")
    return canvas


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
