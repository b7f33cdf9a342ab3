"""Train a small CM3Leon on sounds with captions, then draw sounds of captions and describe sounds.

    OMP_NUM_THREADS=1 uv run python examples/sounds/run.py

makes the sounds, learns everything from nothing in about five minutes on one CPU core, and measures
it. It writes WAV files, spectrograms and `figures.json` below runs/sounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from cm3_retrieval import RetrievalConfig
from cm3_texttok import TextTokenizer
from cm3_train import TokenShards, write_shards
from made_sounds import SAMPLES, every_sound, instruments, play, some_sounds
from sound_codes import FRAME, SoundCodes
from sound_documents import SoundDocuments
from sound_drawing import Parts
from sound_figures import figures, table, write_examples
from sound_memory import SoundEncoder, neighbours, remember
from sound_training import train_decoder

START = time.time()
STRATEGY = RetrievalConfig(duplicate_threshold=0.98, max_likeness=1.0, num_context=1)
"""The same note in another way is no duplicate: it is the document that helps most."""


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    given = _parser().parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(given.seed)
    band = instruments(given.common, given.rare, given.new, given.seed)
    sounds = every_sound(band, rng)
    samples = np.stack([play(s.note, s.way, band[s.instrument].amplitudes, rng) for s in sounds])
    keys = {
        split: [key for key, sound in enumerate(sounds) if sound.split == split]
        for split in sorted({sound.split for sound in sounds})
    }
    say(f"made {len(sounds)} sounds: { {split: len(of) for split, of in keys.items()} }")

    # of other instruments than the documents': an image tokenizer has seen other pictures, too
    codes = SoundCodes.learn(torch.from_numpy(some_sounds(given.others, rng)), seed=given.seed)
    codes.save(given.out / "sound-codes.safetensors")
    captions = [sound.caption for sound in sounds]
    in_training = [captions[key] for key in keys["train"]]
    text = TextTokenizer.train(in_training, vocab_size=given.pieces)
    text.save(given.out / "text-tokenizer")
    documents = SoundDocuments(text, codes, SAMPLES // FRAME)
    say(f"learnt {codes.num_codes} codes of sounds and {text.vocab_size} pieces of text")

    encoder = SoundEncoder(in_training, samples[keys["train"]])
    kept = keys["train"] + keys["shown"]
    bank = remember(encoder, kept, [captions[key] for key in kept], samples[kept])
    bank.save(given.out / "bank")
    near = neighbours(
        bank, encoder, keys["train"], in_training, samples[keys["train"]], STRATEGY, given.seed
    )
    write_shards(
        (
            {"key": key, "text_ids": ids, "codes": row, "caption": caption}
            for key, (ids, row, caption) in enumerate(
                zip(
                    text.encode_batch(captions),
                    codes.encode(torch.from_numpy(samples)).numpy(),
                    captions,
                    strict=True,
                )
            )
        ),
        given.out / "tokens",
        codes_per_image=len(documents.sound),
        vocabulary_sha256=documents.vocabulary.sha256,
    )
    shards = TokenShards(given.out / "tokens", documents.vocabulary.sha256)
    say(f"filled the memory bank with {len(bank)} documents; training takes {given.steps} steps")

    often = [
        key
        for key in keys["train"]
        for _ in range(3 if band[sounds[key].instrument].kind == "common" else 1)
    ]
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
        strategy=STRATEGY,
        shards=shards,
        model=model,
    )
    known = {name: one.amplitudes for name, one in band.items() if one.kind != "rare"}
    found = figures(parts, known, sounds, samples, given.asked)
    write_examples(parts, sounds, samples, found, given.out)
    found |= {"steps": given.steps, "seed": given.seed, "seconds": time.time() - START}
    (given.out / "figures.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    say(f"wrote WAV files, spectrograms.png and figures.json to {given.out}")
    return 0


def say(line: str) -> None:
    """Print a line after the seconds so far."""
    print(f"[{time.time() - START:.0f} s] {line}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, kind, default, what in (
        ("out", Path, Path("runs/sounds"), "folder for all that is made"),
        ("steps", int, 750, "training steps of the decoder"),
        ("common", int, 24, "instruments that play every note"),
        ("rare", int, 1500, "instruments that play one note"),
        ("new", int, 40, "instruments that training never has"),
        ("others", int, 5000, "sounds of other instruments, from which the codes are learnt"),
        ("pieces", int, 400, "pieces of the text tokenizer"),
        ("asked", int, 100, "sounds drawn and described for each figure"),
        ("seed", int, 0, "of all that is drawn"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{what} ({default})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
