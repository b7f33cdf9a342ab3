"""Train a small CM3Leon on sounds with captions, then draw sounds of captions and describe sounds.

    OMP_NUM_THREADS=1 uv run python examples/sounds/run.py

makes the sounds, learns everything from nothing in about six minutes of one CPU core, and measures
it. It writes WAV files, spectrograms and `figures.json` to runs/sounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cm3_texttok import TextTokenizer
from cm3_train import TokenShards, write_shards
from made_sounds import SAMPLES, every_sound, instruments, play, some_sounds
from sound_codes import FRAME, SoundCodes
from sound_documents import SoundDocuments
from sound_drawing import Parts
from sound_figures import figures, table, write_examples
from sound_memory import SoundEncoder, neighbours, remember
from sound_training import train_decoder

PIECES = 400
"""Ids of the text tokenizer; 256 are bytes."""
TURNS = {"common": 3, "rare": 1}
"""How often an epoch has a training sound, by the kind of its instrument."""
OTHERS = 5000
"""Sounds that the codes are learnt from, of instruments that nobody plays again."""


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.out.exists() and (not given.out.is_dir() or any(given.out.iterdir())):
        parser.error(f"argument --out: wanted a new or an empty folder, got {given.out}")
    given.out.mkdir(parents=True, exist_ok=True)
    start, rng = time.monotonic(), np.random.default_rng(given.seed)

    def say(line: str) -> None:
        print(f"[{time.monotonic() - start:.0f} s] {line}", flush=True)

    band = instruments(given.common, given.rare, given.new, given.seed)
    sounds = every_sound(band, rng)
    samples = np.stack([play(s.note, s.way, band[s.instrument].amplitudes, rng) for s in sounds])
    captions = [sound.caption for sound in sounds]
    keys = {
        split: [key for key, sound in enumerate(sounds) if sound.split == split]
        for split in ("train", "validation", "shown")
    }
    train, kept = keys["train"], keys["train"] + keys["shown"]
    in_training = [captions[key] for key in train]
    say(f"made {len(sounds)} sounds, {len(train)} of them for training")

    codes = SoundCodes.learn(torch.from_numpy(some_sounds(OTHERS, rng)), seed=given.seed)
    codes.save(given.out / "sound-codes.safetensors")
    text = TextTokenizer.train(in_training, vocab_size=PIECES)
    text.save(given.out / "text-tokenizer")
    documents = SoundDocuments(text, codes, SAMPLES // FRAME)
    rows = zip(
        text.encode_batch(captions),
        codes.encode(torch.from_numpy(samples)).numpy(),
        captions,
        strict=True,
    )
    write_shards(
        (
            {"key": key, "text_ids": ids, "codes": row, "caption": caption}
            for key, (ids, row, caption) in enumerate(rows)
        ),
        given.out / "tokens",
        codes_per_image=len(documents.sound),
        vocabulary_sha256=documents.vocabulary.sha256,
    )
    shards = TokenShards(given.out / "tokens", documents.vocabulary.sha256)
    say(f"learnt {codes.num_codes} codes of sounds and {text.vocab_size} pieces of text")

    encoder = SoundEncoder(in_training, samples[train])
    bank = remember(encoder, kept, [captions[key] for key in kept], samples[kept])
    bank.save(given.out / "bank")
    near = neighbours(bank, encoder, train, in_training, samples[train], given.seed)
    say(f"filled the memory bank with {len(bank)} documents; training takes {given.steps} steps")

    often = [key for key in train for _ in range(TURNS[band[sounds[key].instrument].kind])]
    model = train_decoder(
        documents, shards, near, often, keys["validation"], given.out / "decoder",
        steps=given.steps, seed=given.seed,
    )  # fmt: skip
    say("trained; drawing and describing")

    parts = Parts(
        text=text,
        codes=codes,
        documents=documents,
        encoder=encoder,
        bank=bank,
        shards=shards,
        model=model,
    )
    known = {name: one.amplitudes for name, one in band.items() if one.kind != "rare"}
    found = figures(parts, known, sounds, samples, given.asked)
    write_examples(parts, sounds, samples, given.out)
    found["settings"] = {name: value for name, value in vars(given).items() if name != "out"}
    found |= {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time()}
    (given.out / "figures.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    say(f"wrote WAV files, spectrograms.png and figures.json to {given.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, kind, default, what in (
        ("out", Path, Path("runs/sounds"), "folder for all that is made"),
        ("steps", _from(2), 1800, "training steps of the decoder"),
        ("common", _from(1), 16, "instruments that play every note"),
        ("rare", _from(1), 1000, "instruments that play one note"),
        ("new", _from(2), 40, "instruments that training never has"),
        ("asked", _from(1), 100, "sounds drawn and described of each group, at most"),
        ("seed", _from(0), 0, "of all that is drawn"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{what} ({default})")
    return parser


def _from(least: int) -> Callable[[str], int]:
    """Return what reads a whole number from `least` on."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            wanted = f"wanted a whole number from {least}, got {text!r}"
            raise argparse.ArgumentTypeError(wanted)
        return int(text)

    return read


if __name__ == "__main__":
    sys.exit(main())
