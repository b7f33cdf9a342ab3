"""The commands of `cm3-retrieval`.

Each takes parsed arguments (`cm3_retrieval.cli`), prints, and writes a bank, a neighbour table or a
page. Commands that need no encoder do not import one, which would take seconds.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from cm3_retrieval.bank.documents import encode_documents, search_documents
from cm3_retrieval.bank.memory_bank import MemoryBank
from cm3_retrieval.bank.quality import measure_bank, save_histogram
from cm3_retrieval.caption_groups import groups_of
from cm3_retrieval.clip.picture_folder import PictureFile, PictureFolder, picture_files
from cm3_retrieval.contact_sheet import text_table, write_contact_sheet
from cm3_retrieval.index.config import IndexConfig
from cm3_retrieval.index.plan import cells_of, expected_bytes
from cm3_retrieval.interface import (
    BANK_COMPONENT,
    ENCODER_COMPONENT,
    TABLE_COMPONENT,
    Encoder,
)
from cm3_retrieval.neighbours.building import build_neighbour_table
from cm3_retrieval.neighbours.strategy import RetrievalConfig
from cm3_retrieval.own_file import check_output
from cm3_retrieval.picture_file import ImageError, load_image, shown
from cm3_retrieval.sealed_folder import MANIFEST_NAME, check_target, read_folder

_BATCH = 64
"""Pictures held in memory at once, or as many as the encoder takes in a batch."""

_TUNING_QUERIES = 256
"""Documents whose captions and pictures tell how wide an approximate search must be."""


def train(options: argparse.Namespace) -> None:
    """Train a small CLIP on captioned pictures."""
    from cm3_retrieval.clip.encoder import CONFIG_NAME
    from cm3_retrieval.clip.training import train_clip
    from cm3_retrieval.clip.training_config import ClipTrainingConfig

    check_target(options.clip, CONFIG_NAME, ENCODER_COMPONENT)
    config = ClipTrainingConfig(steps=options.steps, seed=options.seed)
    side = (config.image_size, config.image_size)
    captions, images, files = [], [], []
    for file, image in _opened(file for file in _listed(options.folder).files if file.captions):
        captions += file.captions
        files += [file] * len(file.captions)
        images += [np.asarray(image.resize(side))] * len(file.captions)
    count = len({file.path for file in files})
    if count < 2:
        raise ValueError(f"{shown(options.folder)}: wanted 2 pictures with captions, got {count}")
    with _bar("training", "step") as progress:
        encoder = train_clip(
            captions,
            np.stack(images),
            config,
            groups=groups_of(captions, [str(file.path) for file in files]),
            folder=options.clip,
            progress=lambda step, steps, _: progress(step, steps),
        )
    print(f"{shown(options.clip)}: {encoder.encoder_id}, trained on {count} captioned pictures")


def build(options: argparse.Namespace) -> None:
    """Build a bank from a folder of pictures, or rebuild it."""
    check_target(options.bank, MANIFEST_NAME, BANK_COMPONENT)
    found = _listed(options.folder)
    encoder = _encoder(options)
    vectors, kept = _encoded(encoder, found.files)
    if not kept:
        count = len(found.files)
        raise ValueError(f"{shown(options.folder)}: none of {count} pictures can be read")
    bank = MemoryBank.build(
        np.arange(len(kept)),
        vectors,
        _columns(kept),
        encoder.encoder_id,
        IndexConfig(factory=options.index),
        threads=options.threads,
    )
    if cells_of(bank.config.factory):
        asked = _queries(bank, encoder, _TUNING_QUERIES)
        bank.tune(asked, k=min(10, len(bank)), threads=options.threads)
    bank.save(options.bank)
    captioned = sum(bool(file.captions) for file in kept)
    print(
        f"{shown(options.bank)}: {len(bank)} documents, {captioned} with captions, "
        f"{len(found.lost)} rows of metadata without a picture, "
        f"{found.unlisted} pictures without a row; index {bank.config.factory}"
    )


def add(options: argparse.Namespace) -> None:
    """Add the pictures that are not in the bank yet."""
    encoder = _encoder(options)
    bank = MemoryBank.load(options.bank, encoder.encoder_id)
    known = set(_column(bank, "path"))
    files = [file for file in _listed(options.folder).files if str(file.path) not in known]
    kept: list[PictureFile] = []
    if files:
        vectors, kept = _encoded(encoder, files)
        with MemoryBank.changing(options.bank):  # another `add` may have saved in the meantime
            bank = MemoryBank.load(options.bank, encoder.encoder_id)
            known = set(_column(bank, "path"))
            new = [row for row, file in enumerate(kept) if str(file.path) not in known]
            kept = [kept[row] for row in new]
            keys = bank.next_key + np.arange(len(kept))
            bank.append(keys, vectors[new], _columns(kept), encoder.encoder_id)
            bank.save(options.bank)
    print(f"{shown(options.bank)}: {len(kept)} new, {len(bank)} documents")


def search(options: argparse.Namespace) -> None:
    """Print the documents found by text, picture or both; write a page on request."""
    check_output("--html", options.html)
    encoder = _encoder(options)
    bank = MemoryBank.load(options.bank, encoder.encoder_id, mmap=True)
    image = None if options.image is None else [load_image(options.image)]
    text = None if options.text is None else [options.text]
    k = min(options.k, len(bank))
    scores, keys = search_documents(bank, encoder, k, texts=text, images=image)
    documents, best = bank.metadata_of(keys[0]), scores[0].tolist()
    print(text_table(documents, best))
    if options.html:
        title = " + ".join(str(part) for part in (options.text, options.image) if part)
        write_contact_sheet(options.html, title, documents, best)
        print(f"{shown(options.html)}: {len(documents)} pictures")


def neighbours(options: argparse.Namespace) -> None:
    """Build the neighbour table for training; a killed run continues."""
    check_target(options.table, MANIFEST_NAME, TABLE_COMPONENT)
    encoder = _encoder(options)
    bank = MemoryBank.load(options.bank, encoder.encoder_id, mmap=True)
    keys = bank.keys
    path_of = dict(zip(keys.tolist(), _column(bank, "path"), strict=True))
    captions = [caption or None for caption in _column(bank, "caption")]
    parts = options.table / "parts"
    config = RetrievalConfig(
        max_relevance=options.max_relevance,
        max_likeness=options.max_likeness,
        duplicate_threshold=options.duplicate_threshold,
        num_candidates=options.candidates,
    )
    with _bar("neighbours") as progress:
        table = build_neighbour_table(
            bank, encoder, keys, captions, lambda key: load_image(path_of[key]), config,
            options.seed, progress=progress, parts=parts, threads=options.threads,
        )  # fmt: skip
    table.save(options.table)
    for part in parts.glob("part-" + 12 * "[0-9]"):
        shutil.rmtree(part)
    with suppress(OSError):  # someone else's files stay
        parts.rmdir()
    full = np.mean([(table.candidate_keys[kind] >= 0).mean() for kind in ("image", "text")])
    print(f"{shown(options.table)}: {len(table)} documents, {full:.0%} of the places taken")


def evaluate(options: argparse.Namespace) -> None:
    """Print recall against exact search and the share of duplicates."""
    check_output("--histogram", options.histogram)
    encoder = None if options.encoder is None else _encoder(options)
    bank = MemoryBank.load(options.bank, None if encoder is None else encoder.encoder_id, mmap=True)
    figures, nearest = measure_bank(
        bank,
        k=options.k,
        queries=options.queries,
        duplicate=options.duplicate,
        vectors=options.vectors and np.load(options.vectors, allow_pickle=False),
        asked=None if encoder is None else _queries(bank, encoder, options.queries),
    )
    for name, value in figures.items():
        print(f"{name:14} {value:.4g}")
    if options.histogram:
        save_histogram(nearest, options.histogram)
        print(f"{shown(options.histogram)}: scores of {len(nearest)} documents")


def info(options: argparse.Namespace) -> None:
    """Print what a bank holds and how large its files are."""
    manifest, paths = read_folder(options.bank, MANIFEST_NAME, BANK_COMPONENT)
    for name in ("count", "dim", "metric", "encoder_id", "interface_version"):
        print(f"{name:18} {shown(str(manifest[name]))}")
    index = {key: value for key, value in manifest.get("index", {}).items() if value is not None}
    print(f"{'index':18} {json.dumps(index)}")
    for name, path in paths.items():
        print(f"{name:18} {path.stat().st_size / 2**20:.1f} MiB  {path.name}")
    if index:
        need = expected_bytes(manifest["count"], manifest["dim"], IndexConfig(**index))
        print(f"{'expected memory':18} {need['memory'] / 2**20:.1f} MiB, metadata left out")


def verify(options: argparse.Namespace) -> None:
    """Check every hash, count and canary query of a bank."""
    bank = MemoryBank.load(options.bank, mmap=True)
    print(
        f"{shown(options.bank)}: whole; {len(bank)} documents, every hash and canary query as saved"
    )


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": train,
    "build": build,
    "add": add,
    "search": search,
    "neighbours": neighbours,
    "eval": evaluate,
    "info": info,
    "verify": verify,
}
"""Name on the command line -> function."""


def _encoder(options: argparse.Namespace) -> Encoder:
    from cm3_retrieval.clip.encoder import CONFIG_NAME, ClipEncoder

    settings = {"device": options.device, "amp": options.amp, "batch_size": options.batch_size}
    if (Path(options.encoder) / CONFIG_NAME).is_file():
        return ClipEncoder.load(options.encoder, **settings)
    if options.pretrained is None and not options.encoder.startswith(("local-dir:", "hf-hub:")):
        raise ValueError(
            f"--encoder: wanted a folder that train_clip wrote, local-dir:PATH, or a model name "
            f"with --pretrained (a tag or a file of weights), got {options.encoder!r} without"
        )
    return ClipEncoder(options.encoder, options.pretrained, **settings)


def _listed(folder: Path) -> PictureFolder:
    """List the documents of a folder; name what is none on stderr, of many the first."""
    found = picture_files(folder)
    for name in found.unnamed:
        print(f"left out: {name}: wanted a name in UTF-8", file=sys.stderr)
    if found.lost:
        count = len(found.lost)
        print(f"left out: {count} rows without a picture, first {found.lost[0]}", file=sys.stderr)
    if found.unlisted:
        print(f"left out: {found.unlisted} pictures that no row lists", file=sys.stderr)
    return found


def _encoded(encoder: Encoder, files: list[PictureFile]) -> tuple[np.ndarray, list[PictureFile]]:
    """Encode the pictures that can be read."""
    parts, kept = [np.empty((0, encoder.dim), np.float32)], []
    with _bar("encoding") as progress:
        step = max(_BATCH, getattr(encoder, "batch_size", 0))
        for start in range(0, len(files), step):
            opened = list(_opened(files[start : start + step]))
            if opened:
                captions, images = [file.caption for file, _ in opened], [i for _, i in opened]
                parts.append(encode_documents(encoder, captions, images))
            kept.extend(file for file, _ in opened)
            progress(min(start + step, len(files)), len(files))
    return np.concatenate(parts), kept


def _opened(files: Iterable[PictureFile]) -> Iterator[tuple[PictureFile, Image.Image]]:
    """Yield the pictures that can be read; name the others on stderr and leave them out."""
    for file in files:
        try:
            yield file, load_image(file.path)
        except ImageError as error:
            tqdm.write(f"left out: {error}", file=sys.stderr)  # above the progress line


def _queries(bank: MemoryBank, encoder: Encoder, count: int) -> dict[str, np.ndarray]:
    """Encode captions and pictures of random documents, each on its own."""
    drawn = np.random.default_rng(1).permutation(bank.keys)[:count]
    documents = bank.metadata_of(drawn)
    texts = [document["caption"] for document in documents if document["caption"]]
    step = max(_BATCH, getattr(encoder, "batch_size", 0))
    pictures = [
        encoder.encode_images([load_image(document["path"]) for document in part])
        for part in (documents[start : start + step] for start in range(0, len(documents), step))
    ]
    return {"text": encoder.encode_texts(texts), "image": np.concatenate(pictures)}


def _columns(files: list[PictureFile]) -> dict[str, list]:
    return {
        "caption": [file.caption or "" for file in files],
        "path": [str(file.path) for file in files],
        "has_both": [file.caption is not None for file in files],
    }


def _column(bank: MemoryBank, name: str) -> list:
    if name not in bank.metadata.column_names:
        raise ValueError(
            f"wanted a bank with column {name!r}, as build makes it; "
            f"got columns {bank.metadata.column_names}"
        )
    return bank.metadata.column(name).to_pylist()


@contextmanager
def _bar(description: str, unit: str = "document") -> Iterator[Callable[[int, int], None]]:
    """Show a progress line; yield a callable of (done, total)."""
    with tqdm(desc=description, unit=unit, dynamic_ncols=True) as line:

        def progress(done: int, total: int) -> None:
            line.total = total
            line.update(done - line.n)

        yield progress
