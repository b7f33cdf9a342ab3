"""Sounds with captions, made here: an instrument plays a note in some way.

"a fading diba on d4". Every instrument is invented: harmonics of its own, and a name. A sound
differs a little each time that it is played.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RATE = 8000
"""Samples a second."""
SAMPLES = 4096
"""Of one sound: about half a second."""
HARMONICS = 7
"""As many stay below 4 kHz on the highest note."""
APART_DB = 8.0
"""Least between the harmonics of two instruments, root mean square."""
FLOOR_DB = -35.0
"""A harmonic below this, beside the loudest, counts as absent."""
NOTES = {
    "c4": 261.63, "d4": 293.66, "e4": 329.63, "f4": 349.23,
    "g4": 392.00, "a4": 440.00, "b4": 493.88, "c5": 523.25,
}  # fmt: skip
"""Hertz of the white keys of an octave."""
TIMES = np.arange(SAMPLES) / SAMPLES
WAYS = {
    "steady": np.ones(SAMPLES),
    "fading": 10 ** (-TIMES),
    "swelling": 10 ** (TIMES - 1),
    "plucked": 10 ** (-2.5 * TIMES),
    "pulsing": 10 ** (-0.5 + 0.5 * np.cos(8 * np.pi * TIMES)),
}
"""How loud a sound is, sample by sample."""


@dataclass(frozen=True)
class Instrument:
    """Who plays."""

    kind: str
    """"common": plays every note; "rare": plays one; "new": plays two, and in no training sound."""
    amplitudes: np.ndarray
    """(HARMONICS,) of its harmonics."""


@dataclass(frozen=True)
class Sound:
    """What is played, and what it is for."""

    instrument: str
    note: str
    way: str
    split: str = ""
    """"train"; "validation" or "test": a common instrument on a note that training has in other
    ways; "rest": the same of a rare instrument. Of new instruments: "shown", which can be
    retrieved, and "new", which is asked for."""

    @property
    def caption(self) -> str:
        """The caption."""
        return f"a {self.way} {self.instrument} on {self.note}"


def instruments(common: int, rare: int, new: int, seed: int) -> dict[str, Instrument]:
    """Return so many instruments by name.

    Any two that are common or new are `APART_DB` apart. Rare ones may be like others.
    """
    made: dict[str, Instrument] = {}
    told: list[np.ndarray] = []
    rng = np.random.default_rng(seed)
    syllables = [consonant + vowel for consonant in "bdfgklmnprtvz" for vowel in "aeiou"]
    kinds = ["common"] * common + ["new"] * new + ["rare"] * rare
    while kinds:
        name, amplitudes = "".join(rng.choice(syllables, 2)), some_harmonics(rng)
        level = levels(amplitudes)
        if name in made:
            continue
        if kinds[0] != "rare":
            if told and np.sqrt(np.square(level - told).mean(1)).min() < APART_DB:
                continue
            told.append(level)
        made[name] = Instrument(kinds.pop(0), amplitudes)
    return made


def some_harmonics(rng: np.random.Generator) -> np.ndarray:
    """Draw the amplitudes (HARMONICS,) of an instrument."""
    amplitudes = 10 ** (rng.uniform(-30, 0, HARMONICS) / 20) * (rng.random(HARMONICS) < 0.85)
    amplitudes[0] = 1  # so that the pitch is clear
    return amplitudes


def levels(amplitudes: np.ndarray) -> np.ndarray:
    """Return decibels (H,) beside the loudest harmonic, at least `FLOOR_DB`."""
    return np.maximum(20 * np.log10(np.maximum(amplitudes / amplitudes.max(), 1e-9)), FLOOR_DB)


def every_sound(band: Mapping[str, Instrument], rng: np.random.Generator) -> list[Sound]:
    """Return what each instrument plays, each note in each way; one way of each is held out."""
    sounds = []
    for name, instrument in band.items():
        count = {"common": len(NOTES), "rare": 1, "new": 2}[instrument.kind]
        for note in rng.choice(list(NOTES), count, replace=False).tolist():
            held_out = str(rng.choice(list(WAYS)))
            away = "validation" if rng.random() < 0.5 else "test"
            split_of = {
                "common": ("train", away),
                "rare": ("train", "rest"),
                "new": ("shown", "new"),
            }
            rest, one = split_of[instrument.kind]
            sounds += [Sound(name, note, way, one if way == held_out else rest) for way in WAYS]
    return sounds


def play(note: str, way: str, amplitudes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the samples (SAMPLES,) float32 in [-1, 1] of a note.

    Args:
        note: Its name.
        way: How it is played.
        amplitudes: (HARMONICS,) of the instrument.
        rng: Draws phases, up to 3 cents of detuning, 1 decibel of loudness, and noise.
    """
    hertz = NOTES[note] * 2 ** (rng.uniform(-3, 3) / 1200)
    number = np.arange(1, HARMONICS + 1)[:, None]
    turns = number * (hertz * np.arange(SAMPLES) / RATE) + rng.random((HARMONICS, 1))
    wave = amplitudes.dot(np.sin(2 * np.pi * turns)) / np.sqrt(np.square(amplitudes).sum())
    wave = 0.3 * 10 ** (rng.uniform(-1, 1) / 20) * wave * WAYS[way]
    return (wave + 1e-5 * rng.standard_normal(SAMPLES)).clip(-1, 1).astype(np.float32)


def some_sounds(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return sounds (count, SAMPLES), each of an instrument that nobody plays again."""
    notes, ways = list(NOTES), list(WAYS)
    drawn = rng.integers((len(notes), len(ways)), size=(count, 2)).tolist()
    return np.stack([play(notes[n], ways[w], some_harmonics(rng), rng) for n, w in drawn])
