"""What a sound is, measured: pitch, instrument and way. Nothing here has learnt anything."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from made_sounds import HARMONICS, NOTES, RATE, SAMPLES, WAYS, Sound, levels

MOMENT = SAMPLES // 16
"""Samples over which loudness is measured."""
FINER = 4
"""Lags between two samples at which the autocorrelation is looked at."""


def heard(samples: np.ndarray, known: Mapping[str, np.ndarray]) -> Sound:
    """Return the instrument, note and way nearest to what is measured on samples (SAMPLES,)."""
    hertz = pitch(samples)
    cents = [abs(np.log2(hertz / one)) for one in NOTES.values()]
    harmonics = levels(harmonics_of(samples, hertz))
    apart = [np.square(harmonics - levels(one)).mean() for one in known.values()]
    contour = loudness(samples)
    ways = [np.square(contour - loudness(one)).mean() for one in WAYS.values()]
    return Sound(
        list(known)[int(np.argmin(apart))],
        list(NOTES)[int(np.argmin(cents))],
        list(WAYS)[int(np.argmin(ways))],
    )


def pitch(samples: np.ndarray) -> float:
    """Return the fundamental in hertz, by the normalised autocorrelation (McLeod's)."""
    spectrum = np.fft.rfft(samples.astype(np.float64), 2 * SAMPLES)
    same = FINER * np.fft.irfft(np.abs(spectrum) ** 2, 2 * SAMPLES * FINER)
    places = np.arange(SAMPLES + 1)
    power = np.concatenate([[0], np.cumsum(samples.astype(np.float64) ** 2)])
    steps = np.arange(RATE // 600 * FINER, RATE // 110 * FINER)
    lags = steps / FINER
    both = np.interp(SAMPLES - lags, places, power) + power[-1] - np.interp(lags, places, power)
    value = 2 * same[steps] / np.maximum(both, 1e-12)
    peaks = 1 + np.flatnonzero((value[1:-1] > value[:-2]) & (value[1:-1] >= value[2:]))
    if not len(peaks):
        return 600.0
    # multiples of the period are peaks, too
    first = peaks[value[peaks] >= 0.95 * value[peaks].max()][0]
    left, top, right = value[first - 1 : first + 2]
    return RATE / (lags[first] + (left - right) / (left - 2 * top + right) / 2 / FINER)


def harmonics_of(samples: np.ndarray, hertz: float) -> np.ndarray:
    """Return the amplitudes (H,) of the strongest partial near each multiple of `hertz`."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(SAMPLES), 4 * SAMPLES))
    bins = hertz * 4 * SAMPLES / RATE * np.arange(1, HARMONICS + 1)
    edges = np.stack([bins * 0.98, bins * 1.02 + 1]).astype(int).clip(0, len(spectrum))
    return np.array([spectrum[low:high].max(initial=0.0) for low, high in edges.T])


def loudness(samples: np.ndarray) -> np.ndarray:
    """Return decibels of each 32 milliseconds beside their loudest, at least -40."""
    power = np.square(samples.astype(np.float64)).reshape(-1, MOMENT).mean(1)
    return np.maximum(10 * np.log10(np.maximum(power / power.max(), 1e-9)), -40.0)
