"""Sounds to codes and back: how loud a sound is from moment to moment, and its spectra.

A frame is 128 milliseconds and has eight codes: the loudness of each quarter in steps of 2
decibels, the nearest of 64 spectra, and three corrections to that, each one of 64. Spectra and
corrections are learnt by k-means. So half a second is 32 codes. Spectra have no phases: `decode`
makes some that fit (Griffin and Lim 1984, with the momentum of Perraudin et al. 2013).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FRAME = 1024
"""Samples of a frame."""
QUARTER = FRAME // 4
WINDOW = 512
"""Samples of a spectrum."""
HOP = 64
"""Samples between the spectra from which sound is made again."""
ROUNDS = 30
"""Of Griffin and Lim."""
STEP_DB = 2.0
LOUDNESSES = 32
"""Steps of loudness, down from 0 decibels."""
POWER = 0.15
"""Spectra are compared as powers to this exponent: quiet lines count, but less than loud ones."""
LEAST = 1e-5
"""Power of the quietest line beside the whole spectrum's."""
SILENT = 1e-4
"""Lines below this are left out of a sound that is made again: sums of centres are never quiet."""
ROWS = 20_000
"""Spectra that the codebooks are learnt from, at most."""


class SoundCodes:
    """A sound tokenizer: `encode` and `decode`."""

    def __init__(self, books: Tensor) -> None:
        """Keep the codebooks (B, C, lines), of spectra and of corrections to them."""
        self.books = books
        self.sizes = (LOUDNESSES,) * 4 + (books.shape[1],) * len(books)
        """How many codes there are at each of a frame's places."""
        spectra = [LOUDNESSES + sum(self.sizes[4:place]) for place in range(4, len(self.sizes))]
        self.starts = (0, 0, 0, 0, *spectra)
        """The first code of each place. Quarters share theirs."""
        self.num_codes = LOUDNESSES + books.shape[0] * books.shape[1]

    @classmethod
    def learn(cls, sounds: Tensor, *, books: int = 4, codes: int = 64, seed: int = 0) -> SoundCodes:
        """Learn the codebooks from sounds (N, S)."""
        draw = torch.Generator().manual_seed(seed)
        rest = spectra_of(sounds).flatten(0, 1)
        rest = rest[torch.randperm(len(rest), generator=draw)[:ROWS]]
        found = []
        for _ in range(books):
            found.append(k_means(rest, codes, draw))
            rest = rest - found[-1][nearest(rest, found[-1])]
        return cls(torch.stack(found))

    def save(self, path: Path) -> None:
        """Write the codebooks."""
        save_file({"books": self.books}, path)

    @classmethod
    def load(cls, path: Path) -> SoundCodes:
        """Read what `save` wrote."""
        return cls(load_file(path)["books"])

    @property
    def sha256(self) -> str:
        """What tells these codes from others."""
        return hashlib.sha256(self.books.numpy().tobytes()).hexdigest()

    def encode(self, sounds: Tensor) -> Tensor:
        """Return the codes (N, frames * 8) of sounds (N, S), S a multiple of `FRAME`."""
        power = sounds.square().unfold(1, QUARTER, QUARTER).mean(2).clamp(min=1e-9)
        loudness = (-10 * power.log10() / STEP_DB).round().long().clamp(0, LOUDNESSES - 1)
        spectra = spectra_of(sounds)
        places = [loudness.view(-1, 4)]
        rest = spectra.flatten(0, 1)
        for book in self.books:
            found = nearest(rest, book)
            places.append(found[:, None])
            rest = rest - book[found]
        codes = torch.cat(places, 1) + torch.tensor(self.starts)  # (N * frames, 8)
        return codes.view(len(sounds), -1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the sounds (N, S) in [-1, 1] of codes (N, frames * 8)."""
        frames = codes.view(len(codes), -1, len(self.sizes)) - torch.tensor(self.starts)
        power = 10 ** (-STEP_DB / 10 * frames[..., :4].flatten(1))
        chosen = [book[frames[..., 4 + n]] for n, book in enumerate(self.books)]
        spectra = torch.stack(chosen).sum(0).clamp(min=0) ** (1 / POWER)
        return sound_of(power, spectra.where(spectra > SILENT, 1e-9))


def spectra_of(sounds: Tensor) -> Tensor:
    """Return the spectra (N, frames, lines) amid the frames of sounds (N, S), loudness aside."""
    middle = (FRAME - WINDOW) // 2
    cut = sounds.unfold(1, FRAME, FRAME)[..., middle : middle + WINDOW]
    power = torch.fft.rfft(cut * torch.hann_window(WINDOW)).abs().square()
    whole = power.sum(2, keepdim=True).clamp(min=1e-9)
    return (power / whole).clamp(min=LEAST) ** POWER


def sound_of(power: Tensor, spectra: Tensor) -> Tensor:
    """Return sounds (N, S).

    Args:
        power: (N, quarters) mean squares.
        spectra: (N, frames, lines) powers of the lines beside each other.
    """
    length = spectra.shape[1] * FRAME
    spectra = spectra / spectra.sum(2, keepdim=True)
    lines = between(spectra.log10(), FRAME) + between(power.log10(), QUARTER)[..., None]
    window = torch.hann_window(WINDOW)
    wanted = (10**lines * WINDOW * window.square().sum() / 2).sqrt().transpose(1, 2)
    shape = {"n_fft": WINDOW, "hop_length": HOP, "window": window}
    turns = 2 * torch.pi * torch.rand(wanted.shape, generator=torch.Generator().manual_seed(0))
    guess = last = torch.polar(wanted, turns)
    for _ in range(ROUNDS):
        found = torch.stft(torch.istft(guess, length=length, **shape), return_complex=True, **shape)
        guess, last = torch.polar(wanted, (found + 0.99 * (found - last)).angle()), found
    return torch.istft(guess, length=length, **shape).clamp(-1, 1)


def between(values: Tensor, step: int) -> Tensor:
    """Return values (N, T, ...) of the middles of `step` samples at every `HOP` samples."""
    at = torch.arange(0, values.shape[1] * step + 1, HOP) / step - 0.5
    at = at.clamp(0, values.shape[1] - 1)
    before = at.long().clamp(max=values.shape[1] - 2)
    share = (at - before).view(-1, *[1] * (values.ndim - 2))
    return (1 - share) * values[:, before] + share * values[:, before + 1]


def k_means(rows: Tensor, count: int, draw: torch.Generator, rounds: int = 15) -> Tensor:
    """Return `count` centres of rows (N, D); one that no row is near to starts again at a row."""
    centres = rows[torch.randperm(len(rows), generator=draw)[:count]]
    for _ in range(rounds):
        found = nearest(rows, centres)
        sums = torch.zeros_like(centres).index_add_(0, found, rows)
        sizes = torch.bincount(found, minlength=count)[:, None]
        others = rows[torch.randint(len(rows), (count,), generator=draw)]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), others)
    return centres


def nearest(rows: Tensor, centres: Tensor) -> Tensor:
    """Return the number of the centre that is nearest to each row."""
    return (centres.square().sum(1) - 2 * rows @ centres.T).argmin(1)
