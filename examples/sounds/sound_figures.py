"""How good drawings and captions are, beside chance and beside the best that the codes allow."""

from __future__ import annotations

import re
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from made_sounds import NOTES, RATE, WAYS, Sound
from measured import heard, pitch
from sound_drawing import Parts, describe, draw, retrieved

WORDS = ("instrument", "note", "way")
GROUPS = {
    "test": "common instruments, each note in the way that was held out",
    "new": "new instruments, of which training has nothing",
}
LINES = {
    "drawn": "caption to sound, no document",
    "drawn with document": "caption to sound, one document",
    "described": "sound to caption, no document",
    "described with document": "sound to caption, one document",
    "document": "the document of the caption itself",
    "ceiling": "real sounds through the codes",
}


def figures(
    parts: Parts,
    known: Mapping[str, np.ndarray],
    sounds: Sequence[Sound],
    samples: np.ndarray,
    asked: int,
) -> dict[str, Any]:
    """Draw and describe sounds of each group; return how often each word is right.

    Args:
        parts: Of the trained model.
        known: The harmonics of the instruments that are told apart.
        sounds: What every sound is, by key.
        samples: (K, S) the sounds.
        asked: Sounds of each group, at most.
    """
    chance = {"instrument": 1 / len(known), "note": 1 / len(NOTES), "way": 1 / len(WAYS)}
    found: dict[str, Any] = {"chance": chance | {"all": float(np.prod(list(chance.values())))}}
    for split in GROUPS:
        keys = keys_of(sounds, split)[:asked]
        wanted, real = [sounds[key] for key in keys], samples[keys]
        captions = [sound.caption for sound in wanted]
        by_caption, by_sound = retrieved(parts, captions=captions), retrieved(parts, sounds=real)
        through = parts.codes.decode(parts.codes.encode(torch.from_numpy(real))).numpy()
        cents = [1200 * np.log2(pitch(a) / pitch(b)) for a, b in zip(through, real, strict=True)]
        nothing: list[list[int]] = [[] for _ in keys]
        got = {
            "drawn": [heard(one, known) for one in draw(parts, captions, nothing)],
            "drawn with document": [heard(one, known) for one in draw(parts, captions, by_caption)],
            "described": [told(text) for text in describe(parts, real, nothing)],
            "described with document": [told(text) for text in describe(parts, real, by_sound)],
            "document": [sounds[key] for (key,) in by_caption],
            "ceiling": [heard(one, known) for one in through],
        }
        found[split] = {name: right(wanted, one) for name, one in got.items()}
        found[split] |= {"sounds": len(keys), "cents": float(np.median(np.abs(cents)))}
    return found


def keys_of(sounds: Sequence[Sound], split: str) -> list[int]:
    """Return the keys of a split, in an order that mixes instruments."""
    keys = [key for key, sound in enumerate(sounds) if sound.split == split]
    return [keys[place] for place in np.random.default_rng(0).permutation(len(keys))]


def told(caption: str) -> Sound:
    """Return what a caption says; empty words where it is none."""
    match = re.fullmatch(r"a (\w+) (.+) on (\w+)", caption)
    way, instrument, note = match.groups() if match else ("", "", "")
    return Sound(instrument, note, way)


def right(wanted: Sequence[Sound], got: Sequence[Sound]) -> dict[str, float]:
    """Return how often instrument, note and way are what was wanted, and all three at once."""
    hits = np.array(
        [
            [getattr(one, word) == getattr(other, word) for word in WORDS]
            for one, other in zip(wanted, got, strict=True)
        ]
    )
    shares = dict(zip(WORDS, hits.mean(0).tolist(), strict=True))
    return {**shares, "all": float(hits.all(1).mean())}


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as Markdown, in per cent."""

    def line(name: str, shares: Mapping[str, float]) -> str:
        return f"| {name} | {' | '.join(f'{100 * shares[w]:.0f}' for w in (*WORDS, 'all'))} |"

    lines = ["| | instrument | note | way | all three |", "|---|---|---|---|---|"]
    lines.append(line("chance", found["chance"]))
    for split, title in GROUPS.items():
        lines.append(f"| **{title}** ({found[split]['sounds']} sounds) | | | | |")
        lines += [line(title, found[split][name]) for name, title in LINES.items()]
    return "\n".join(lines)


def write_examples(
    parts: Parts, sounds: Sequence[Sound], samples: np.ndarray, folder: Path
) -> None:
    """Write the first sounds of each group, their documents and what is drawn.

    Args:
        parts: Of the trained model.
        sounds: What every sound is, by key.
        samples: (K, S) the sounds.
        folder: Takes the folder `wav` and `spectrograms.png`.
    """
    keys = [key for split in GROUPS for key in keys_of(sounds, split)[:3]]
    captions = [sounds[key].caption for key in keys]
    documents = retrieved(parts, captions=captions)
    rows = {
        "real": samples[keys],
        "document": samples[[key for (key,) in documents]],
        "drawn, no document": draw(parts, captions, [[] for _ in keys]),
        "drawn, one document": draw(parts, captions, documents),
    }
    (folder / "wav").mkdir()
    for name, made in rows.items():
        for one, caption in zip(made, captions, strict=True):
            file = f"{caption}, {name}".replace(",", "").replace(" ", "-")
            write_wav(folder / "wav" / f"{file}.wav", one)
    write_sheet(folder / "spectrograms.png", rows, captions)


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write a sound (S,) in [-1, 1] with 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, len(samples), "NONE", ""))
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())


def write_sheet(path: Path, rows: Mapping[str, np.ndarray], titles: Sequence[str]) -> None:
    """Write spectrograms as PNG: a row for each kind of sound, a column for each title."""
    figure = Figure(figsize=(1.9 * len(titles), 1.5 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(titles), squeeze=False)
    for name, sounds, line in zip(rows, rows.values(), panels, strict=True):
        for samples, title, panel in zip(sounds, titles, line, strict=True):
            panel.specgram(samples + 1e-6, NFFT=512, noverlap=448, Fs=RATE, vmin=-85, vmax=-40)
            panel.set(xticks=[], yticks=[])
            if panel in panels[0]:
                panel.set_title(title, fontsize=8)
        line[0].set_ylabel(name, fontsize=8)
    figure.savefig(path, dpi=80)
