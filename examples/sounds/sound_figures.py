"""How good drawings and captions are, beside chance and beside the best that the codes allow."""

from __future__ import annotations

import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from made_sounds import NOTES, RATE, WAYS, Sound
from measured import heard, pitch
from sound_drawing import Parts, contexts, describe, draw

WORDS = ("instrument", "note", "way")
GUIDANCE = (1.0, 1.5, 2.0, 3.0)
"""Scales of guidance, of which validation chooses one."""
GROUPS = {
    "test": "common instruments, on a note that training has in other ways",
    "new": "new instruments, of which training has nothing",
}


def figures(
    parts: Parts,
    known: Mapping[str, np.ndarray],
    sounds: Sequence[Sound],
    samples: np.ndarray,
    asked: int,
) -> dict[str, Any]:
    """Draw and describe sounds of validation, test and new instruments; return what is right.

    Args:
        parts: Of the trained model.
        known: The harmonics of the instruments that are told apart.
        sounds: What every sound is, by key.
        samples: (K, S) the sounds.
        asked: Sounds of each group, at most.
    """
    keys = {split: keys_of(sounds, split)[:asked] for split in ("validation", *GROUPS)}
    found: dict[str, Any] = {
        "chance": dict(zip(WORDS, (1 / len(known), 1 / len(NOTES), 1 / len(WAYS)), strict=True))
    }
    scales = {}
    for documents in (0, 1):
        wanted = [sounds[key] for key in keys["validation"]]
        rights = {
            scale: right(wanted, listen(known, drawings(parts, wanted, documents, scale)))
            for scale in GUIDANCE
        }
        scales[documents] = max(GUIDANCE, key=lambda scale: rights[scale]["all"])
    for split in GROUPS:
        wanted = [sounds[key] for key in keys[split]]
        real = samples[keys[split]]
        through = parts.codes.decode(parts.codes.encode(torch.from_numpy(real))).numpy()
        group: dict[str, Any] = {
            "sounds": len(wanted),
            "ceiling": right(wanted, listen(known, through)),
            "cents": float(np.median(np.abs(1200 * np.log2(pitches(through) / pitches(real))))),
        }
        by_caption = contexts(parts, 1, captions=[sound.caption for sound in wanted])
        by_sound = contexts(parts, 1, sounds=real)
        for name, before in (("by_caption", by_caption), ("by_sound", by_sound)):
            group[f"documents_{name}"] = right(wanted, [sounds[key] for (key,) in before])
        for documents, name in enumerate(("without", "with_document")):
            drawn = drawings(parts, wanted, documents, scales[documents])
            before = contexts(parts, documents, sounds=real)
            group[name] = {
                "guidance": scales[documents],
                "drawn": right(wanted, listen(known, drawn)),
                "described": said(wanted, describe(parts, real, before)),
            }
        found[split] = group
    return found


def keys_of(sounds: Sequence[Sound], split: str) -> list[int]:
    """Return the keys of a split, in an order that mixes instruments."""
    keys = [key for key, sound in enumerate(sounds) if sound.split == split]
    return [keys[place] for place in np.random.default_rng(0).permutation(len(keys))]


def drawings(parts: Parts, wanted: Sequence[Sound], documents: int, guidance: float) -> np.ndarray:
    """Return a sound (N, S) for the caption of each, with so many documents before it."""
    captions = [sound.caption for sound in wanted]
    return draw(parts, captions, contexts(parts, documents, captions=captions), guidance=guidance)


def listen(known: Mapping[str, np.ndarray], samples: np.ndarray) -> list[Sound]:
    """Return what is measured on sounds (N, S)."""
    return [heard(one, known) for one in samples]


def pitches(samples: np.ndarray) -> np.ndarray:
    """Return the pitch (N,) in hertz of sounds (N, S)."""
    return np.array([pitch(one) for one in samples])


def right(wanted: Sequence[Sound], got: Sequence[Sound]) -> dict[str, float]:
    """Return how often instrument, note and way are what was wanted, and all three at once."""
    hits = np.array(
        [
            [getattr(one, word) == getattr(other, word) for word in WORDS]
            for one, other in zip(wanted, got, strict=True)
        ]
    )
    return {
        **dict(zip(WORDS, hits.mean(0).tolist(), strict=True)),
        "all": float(hits.all(1).mean()),
    }


def said(wanted: Sequence[Sound], captions: Sequence[str]) -> dict[str, float]:
    """Return how often captions say instrument, note and way, and are right as a whole."""
    pairs = list(zip(wanted, captions, strict=True))
    shares = {
        word: float(np.mean([f" {getattr(s, word)} " in f" {caption} " for s, caption in pairs]))
        for word in WORDS
    }
    return {**shares, "all": float(np.mean([s.caption == caption for s, caption in pairs]))}


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as Markdown, in per cent."""
    lines = ["| | instrument | note | way | all three |", "|---|---|---|---|---|"]

    def line(name: str, shares: Mapping[str, float]) -> None:
        cells = [f"{100 * shares[word]:.0f}" if word in shares else "" for word in (*WORDS, "all")]
        lines.append(f"| {name} | {' | '.join(cells)} |")

    line("chance", found["chance"])
    for split, title in GROUPS.items():
        group = found[split]
        lines.append(f"| **{title}** | | | | |")
        for kind, verb in (("drawn", "caption to sound"), ("described", "sound to caption")):
            line(f"{verb}, no document", group["without"][kind])
            line(f"{verb}, one document", group["with_document"][kind])
        line("real sounds through the codes", group["ceiling"])
    return "\n".join(lines)


def write_examples(
    parts: Parts,
    sounds: Sequence[Sound],
    samples: np.ndarray,
    found: Mapping[str, Any],
    folder: Path,
) -> None:
    """Write WAV files and spectrograms of the first sounds of each group, and of what was drawn.

    Args:
        parts: Of the trained model.
        sounds: What every sound is, by key.
        samples: (K, S) the sounds.
        found: What `figures` gave.
        folder: Takes the folder `wav` and `spectrograms.png`.
    """
    keys = [key for split in GROUPS for key in keys_of(sounds, split)[:3]]
    wanted = [sounds[key] for key in keys]
    (before,) = zip(*contexts(parts, 1, captions=[one.caption for one in wanted]), strict=True)
    scales = [found["test"][name]["guidance"] for name in ("without", "with_document")]
    rows = {
        "real": samples[keys],
        "document": samples[list(before)],
        "drawn, no document": drawings(parts, wanted, 0, scales[0]),
        "drawn, one document": drawings(parts, wanted, 1, scales[1]),
    }
    (folder / "wav").mkdir(exist_ok=True)
    for name, made in rows.items():
        for one, sound in zip(made, wanted, strict=True):
            file = f"{sound.caption}, {name}".replace(",", "").replace(" ", "-")
            write_wav(folder / "wav" / f"{file}.wav", one)
    write_sheet(folder / "spectrograms.png", rows, [one.caption for one in wanted])


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write a sound (S,) in [-1, 1] with 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, len(samples), "NONE", ""))
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())


def write_sheet(
    path: Path, rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str]
) -> None:
    """Write spectrograms as PNG: a row for each kind of sound, a column for each title."""
    figure = Figure(figsize=(2.2 * len(titles), 1.9 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(titles), squeeze=False)
    for name, sounds, line in zip(rows, rows.values(), panels, strict=True):
        for samples, title, panel in zip(sounds, titles, line, strict=True):
            panel.specgram(samples + 1e-6, NFFT=512, noverlap=448, Fs=RATE, vmin=-120, vmax=-40)
            panel.set(xticks=[], yticks=[])
            if panel in panels[0]:
                panel.set_title(title, fontsize=7)
        line[0].set_ylabel(name, fontsize=8)
    figure.savefig(path, dpi=100)
