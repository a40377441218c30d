"""A series as the radiologist's list sees it: positive if any of its slices is, as likely as its likeliest slice.

Dimension key: N slices, S series, L labels.
"""

import numpy as np
import pandas as pd

from ichtune.errors import ConflictError, DataError


def series_maxima(
    y_NL: np.ndarray, p_NL: np.ndarray, patient_N: np.ndarray, series_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take the largest label and probability of each series.

    The largest of many probabilities ranks series, but is itself no calibrated probability: score it by rank only.

    Args:
        y_NL: labels (N, L).
        p_NL: probabilities (N, L).
        patient_N: the patient of each slice.
        series_N: the series of each slice.

    Returns:
        Labels (S, L), probabilities (S, L) and patients (S,), in the order of the series' names.

    Raises:
        DataError: a slice without a series.
        ConflictError: a series of two patients.
    """
    code_N, names = pd.factorize(np.asarray(series_N), sort=True)
    if len(code_N) != len(y_NL) or len(code_N) == 0 or code_N.min() < 0:
        raise DataError(f"each of {len(y_NL)} slices needs a series, got {int((code_N >= 0).sum())}")
    order = np.argsort(code_N, kind="stable")
    start_S = np.flatnonzero(np.diff(code_N[order], prepend=-1))
    patient_S = np.asarray(patient_N)[order][start_S]
    strange = np.flatnonzero(patient_S[code_N] != np.asarray(patient_N))
    if len(strange):
        row = strange[0]
        raise ConflictError(
            f"series {names[code_N[row]]!r} must belong to one patient, got {patient_S[code_N[row]]!r} and "
            f"{np.asarray(patient_N)[row]!r}; check series_instance_uid and patient_id of the slices"
        )
    return (
        np.maximum.reduceat(y_NL[order], start_S, axis=0),
        np.maximum.reduceat(p_NL[order], start_S, axis=0),
        patient_S,
    )
