"""Generated members as a search leaves them: nearly all wrong in the same places, some far better, a few hurt or bad.

Slices, series, patients and labels are those of ``generated_predictions``. Members see one picture with one error, and
add errors of their kind and of their own: each reaches over a slice, a whole series and a whole patient. The shared
error cannot be told from the truth by comparing members, or stacking would look better than it is.

Dimension key: M members, N slices, L labels in the order of ``ichtune.labels.LABELS``.
"""

import numpy as np

from benchmarks.generated_predictions import DISTANCE, GeneratedPredictions, generate_predictions
from ichtune.labels import N_LABELS

#: Parts of an error's variance that reach over a slice, a series and a patient.
REACH = (0.6, 0.25, 0.15)
#: Size of a member's own error beside the shared one of 1, from good to weak members; errors of two members then
#: correlate by 0.7 to 0.9. That of its kind, and of a bad member.
OWN, KIND, BAD = (0.25, 0.6), 0.2, 2.0
N_KINDS = 5
#: Every so many-th member is miscalibrated, and every so many-th is bad.
MISCALIBRATED_EVERY, BAD_EVERY = 4, 7


def correlated_members(
    n_rows: int, n_members: int, seed: int = 7, differ: bool = True, dtype: type = np.float64
) -> GeneratedPredictions:
    """Make members on generated slices.

    Args:
        n_rows: N.
        n_members: M.
        seed: of everything.
        differ: whether members differ in strength and some are miscalibrated or bad; else all are alike.
        dtype: of the probabilities.
    """
    bare = generate_predictions(n_rows, 1, seed)
    rng = np.random.default_rng(seed + 1)
    rate_L = bare.y_NL.mean(axis=0)
    prior_L = np.log(rate_L / (1.0 - rate_L))
    signal_NL = np.asarray(DISTANCE) * (_blurred(bare.y_NL, bare.series_N) - 0.5)
    picture_NL = signal_NL + _errors(rng, bare)
    kinds = [_errors(rng, bare) for _ in range(N_KINDS)]
    p_MNL = np.empty((n_members, n_rows, N_LABELS), dtype=dtype)
    for m, p_NL in enumerate(p_MNL):
        own_L = np.full(N_LABELS, sum(OWN) / 2)
        if differ:
            is_bad = m % BAD_EVERY == BAD_EVERY - 1
            own_L = (BAD if is_bad else rng.uniform(*OWN)) * np.exp(0.2 * rng.standard_normal(N_LABELS))
        seen_NL = picture_NL + KIND * kinds[m % N_KINDS] + own_L * _errors(rng, bare)
        z_NL = seen_NL * np.asarray(DISTANCE) / (1.0 + KIND**2 + own_L**2) + prior_L
        if differ and m % MISCALIBRATED_EVERY == 1:
            z_NL = rng.uniform(0.5, 1.8) * z_NL + rng.normal(0.0, 0.7, N_LABELS)
        p_NL[:] = 1.0 / (1.0 + np.exp(-z_NL))
    return GeneratedPredictions(p_MNL, bare.y_NL, bare.patient_N, bare.series_N)


def _blurred(y_NL: np.ndarray, series_N: np.ndarray) -> np.ndarray:
    """Return labels that are less plain at the ends of a bleed, (N, L); slices of a series follow each other."""
    blurred_NL = y_NL.copy()
    is_inside = (series_N[1:] == series_N[:-1])[:, None]
    step_NL = 0.3 * (y_NL[1:] - y_NL[:-1]) * is_inside
    blurred_NL[1:] -= step_NL
    blurred_NL[:-1] += step_NL
    return blurred_NL


def _errors(rng: np.random.Generator, bare: GeneratedPredictions) -> np.ndarray:
    """Return errors of variance one, (N, L)."""
    slice_share, series_share, patient_share = REACH
    n_series, n_patients = int(bare.series_N.max()) + 1, int(bare.patient_N.max()) + 1
    error_NL = np.sqrt(slice_share) * rng.standard_normal(bare.y_NL.shape)
    error_NL += np.sqrt(series_share) * rng.standard_normal((n_series, N_LABELS))[bare.series_N]
    error_NL += np.sqrt(patient_share) * rng.standard_normal((n_patients, N_LABELS))[bare.patient_N]
    return error_NL
