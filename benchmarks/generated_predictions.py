"""Generated predictions of many members with the structure of the competition's: what blends are timed and judged on.

Patients have one or two series, a series 20 to 60 slices in order, a bleed covers a run of them. Members see a shared
picture of each slice, wrong in the same places, with errors of their own kind (architecture) and of their own on top;
errors reach from slice to slice. Members differ in how much they err and in how sure they are.

Dimension key: M members, N slices, L labels in the order of ``ichtune.labels.LABELS``.
"""

from dataclasses import dataclass

import numpy as np

from ichtune.labels import LABELS, N_LABELS

#: Share of series with each subtype, and the mean share of such a series that the bleed covers, in the order of
#: SUBTYPES; they give the label rates of the competition's first stage (field guide, section 2).
SERIES_RATE = (0.016, 0.246, 0.170, 0.182, 0.176)
COVERED = (0.25, 0.196, 0.207, 0.262, 0.358)
#: Distance of positives and negatives in each label's picture, in units of its noise; sets how hard a label is.
DISTANCE = (3.3, 3.2, 4.2, 4.6, 3.4, 3.4)
SERIES_PER_PATIENT = 1.15
N_KINDS = 5


@dataclass(frozen=True)
class GeneratedPredictions:
    """Members (M, N, L), labels (N, L) and the patient and series number of each slice (N,)."""

    p_MNL: np.ndarray
    y_NL: np.ndarray
    patient_N: np.ndarray
    series_N: np.ndarray


def generate_predictions(
    n_rows: int, n_members: int, seed: int = 11, dtype: type = np.float64, spread: float = 1.0
) -> GeneratedPredictions:
    """Make predictions of ``n_members`` on ``n_rows`` slices; ``spread`` scales how much members differ."""
    rng = np.random.default_rng(seed)
    series_N, patient_N, place_N = _slices(rng, n_rows)
    y_NL = _labels(rng, series_N, place_N)
    prior_L = np.log(y_NL.mean(axis=0) / (1.0 - y_NL.mean(axis=0)))
    picture_NL = _picture(rng, y_NL, series_N)
    kind_KNL = [_smooth_noise(rng, series_N, 0.5) for _ in range(N_KINDS)]
    p_MNL = np.empty((n_members, n_rows, N_LABELS), dtype=dtype)
    for m, p_NL in enumerate(p_MNL):
        own, kind = spread * rng.uniform(0.25, 0.7), 0.3 * spread
        surety = rng.uniform(0.7, 1.1)
        seen_NL = picture_NL + kind * kind_KNL[m % N_KINDS] + own * _smooth_noise(rng, series_N, 0.3)
        variance = 1.0 + kind**2 + own**2
        z_NL = surety * np.float32(1.0 / variance) * seen_NL * np.float32(DISTANCE) + np.float32(prior_L)
        p_NL[:] = 1.0 / (1.0 + np.exp(-z_NL, dtype=dtype))
    return GeneratedPredictions(p_MNL, y_NL, patient_N, series_N)


def _slices(rng: np.random.Generator, n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the series, the patient and the place in its series, from 0 to 1, of each slice."""
    n_series = n_rows // 20 + 1
    lengths = np.clip(rng.normal(34.6, 6.0, n_series).round(), 20, 60).astype(int)
    series_N = np.repeat(np.arange(n_series), lengths)[:n_rows]
    first = np.cumsum(lengths) - lengths
    place_N = (np.arange(n_rows) - first[series_N]) / (lengths[series_N] - 1)
    patient_of_series = np.cumsum(rng.random(n_series) < 1.0 / SERIES_PER_PATIENT)
    return series_N, patient_of_series[series_N], place_N


def _labels(rng: np.random.Generator, series_N: np.ndarray, place_N: np.ndarray) -> np.ndarray:
    """Return labels (N, L), float64: runs of slices; subtypes meet in the same series more often than by chance."""
    n_series = int(series_N[-1]) + 1
    severity = rng.standard_normal(n_series)
    y_NL = np.zeros((len(series_N), N_LABELS))
    for subtype, (rate, covered) in enumerate(zip(SERIES_RATE, COVERED, strict=True), start=1):
        affinity = 0.75 * severity + 0.66 * rng.standard_normal(n_series)
        bleeds = affinity > np.quantile(affinity, 1.0 - rate)
        half = 0.5 * np.clip(covered * rng.lognormal(-0.08, 0.4, n_series), 0.04, 1.0)
        middle = rng.uniform(half, 1.0 - half)
        y_NL[:, subtype] = bleeds[series_N] & (np.abs(place_N - middle[series_N]) <= half[series_N])
    y_NL[:, LABELS.index("any")] = y_NL[:, 1:].max(axis=1)
    return y_NL


def _picture(rng: np.random.Generator, y_NL: np.ndarray, series_N: np.ndarray) -> np.ndarray:
    """Return what every member sees (N, L), float32: blurred at the ends of a bleed, with shared errors."""
    blurred_NL = 0.7 * y_NL
    blurred_NL[1:] += 0.15 * y_NL[:-1]
    blurred_NL[:-1] += 0.15 * y_NL[1:]
    shared_NL = _smooth_noise(rng, series_N, 0.5)
    return (np.asarray(DISTANCE) * (blurred_NL - 0.5)).astype(np.float32) + shared_NL


def _smooth_noise(rng: np.random.Generator, series_N: np.ndarray, share: float) -> np.ndarray:
    """Return noise of variance one (N, L), float32: ``share`` of it reaches over three neighbouring slices."""
    white_NL = rng.standard_normal((len(series_N), N_LABELS), dtype=np.float32)
    wide_NL = white_NL.copy()
    wide_NL[1:] += white_NL[:-1]
    wide_NL[:-1] += white_NL[1:]
    noise_NL = rng.standard_normal(white_NL.shape, dtype=np.float32)
    return np.float32(np.sqrt(share / 3.0)) * wide_NL + np.float32(np.sqrt(1.0 - share)) * noise_NL
