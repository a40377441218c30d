"""Every score of a prediction besides the metric, for slices and for series, each with a patient-bootstrap interval.

Dimension key: N slices, S series, L labels, P patients, D draws.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from ichtune.ensemble.scores.bootstrap import LEVEL, N_DRAWS, loss_intervals
from ichtune.ensemble.scores.calibration_error import N_BINS, calibration_error, equal_count_bins
from ichtune.ensemble.scores.discrimination import RANK_SCORES, RankedLabel, on_places, rank_label, rank_scores
from ichtune.ensemble.scores.patient_draws import patient_codes, patient_draws, percentile_interval
from ichtune.ensemble.scores.series_scores import series_maxima
from ichtune.errors import DataError
from ichtune.labels import LABELS, METRIC_WEIGHTS
from ichtune.metrics import check_probabilities, label_losses, slice_losses

#: Places of a ranking in the bootstrap; with fewer distinct scores of positives its draws are exact.
MAX_PLACES = 4000
LOG_LOSS, CALIBRATION = "log_loss", "calibration_error"


def scores_of(
    y_NL: np.ndarray, p_NL: np.ndarray, patient_N: np.ndarray, series_N: np.ndarray, n_draws: int = N_DRAWS
) -> dict[str, Any]:
    """Score predictions of slices that their model did not see.

    Args:
        y_NL: labels (N, L), 0 or 1.
        p_NL: probabilities (N, L).
        patient_N: the patient of each slice.
        series_N: the series of each slice.
        n_draws: bootstrap draws.

    Returns:
        Plain values for JSON::

            {"slices": {"n", "labels": {label: {score: value}}, "pooled": {score: value}},
             "series": the same of series, ranked by their likeliest slice,
             "n_patients", "interval": {"level", "draws", "unit"}, "calibration_bins"}

        Each ``value`` is ``{"estimate", "low", "high"}``. A score that is undefined has ``None`` in their place, and
        one of which some draws were undefined and left out says so: both under ``"reason"``. Scores of slices are
        ``log_loss`` (nats), ``auc``, ``average_precision``, ``sensitivity_at_specificity_0.9`` and ``_0.95``,
        ``specificity_at_sensitivity_0.9`` and ``_0.95``, and ``calibration_error``, which has a key ``by_chance``
        besides (see ``CalibrationError``). Series have no log loss and no calibration: the largest of many
        probabilities is not one. ``pooled`` is the mean over the labels that have the score, weighed as the metric
        weighs them, so that ``log_loss`` there is the metric; a ranking of all labels' slices together would praise
        whoever knows that epidural is rare. Its calibration error is of all labels' probabilities in the same bins.

    Raises:
        DataError: shapes that differ, no slice, labels other than 0 and 1, or values that are no probabilities.
        ConflictError: a series of two patients.
    """
    if not (len(y_NL) == len(p_NL) == len(patient_N) == len(series_N)) or y_NL.shape != p_NL.shape:
        raise DataError(
            "labels, probabilities, patients and series must have a row for each slice, got "
            f"{y_NL.shape}, {p_NL.shape}, {len(patient_N)} and {len(series_N)}"
        )
    check_probabilities(p_NL)
    code_N, n_patients = patient_codes(patient_N)
    times_PD = patient_draws(n_patients, n_draws)
    y_SL, p_SL, code_S = series_maxima(y_NL, p_NL, code_N, series_N)
    slices, series = _rankings(y_NL, p_NL, code_N, times_PD), _rankings(y_SL, p_SL, code_S, times_PD)
    _add_losses(slices, y_NL, p_NL, code_N, n_draws)
    _add_calibration(slices, y_NL, p_NL, code_N, times_PD)
    return {
        "slices": {"n": len(y_NL), **slices},
        "series": {"n": len(y_SL), **series},
        "n_patients": n_patients,
        "interval": {"level": LEVEL, "draws": n_draws, "unit": "patient"},
        "calibration_bins": N_BINS,
    }


def _rankings(y_NL: np.ndarray, p_NL: np.ndarray, code_N: np.ndarray, times_PD: np.ndarray) -> dict[str, Any]:
    """Return the scores by rank of each label, and of all labels."""
    found: dict[str, dict[str, np.ndarray]] = {}
    missing: dict[str, str] = {}
    for column, label in enumerate(LABELS):
        y_N, p_N = y_NL[:, column], p_NL[:, column]
        ranked = rank_label(y_N, p_N, code_N, len(times_PD))
        if ranked.missing:
            missing[label] = ranked.missing
        found[label] = _drawn(ranked, y_N, p_N, code_N, times_PD)
    labels: dict[str, dict[str, Any]] = {
        label: {name: _value(found[label][name], missing.get(label)) for name in RANK_SCORES} for label in LABELS
    }
    for column, label in enumerate(LABELS):
        labels[label]["n_positive"] = int((y_NL[:, column] == 1).sum())
    return {"labels": labels, "pooled": {name: _pooled(found, missing, name) for name in RANK_SCORES}}


def _drawn(
    ranked: RankedLabel, y_N: np.ndarray, p_N: np.ndarray, code_N: np.ndarray, times_PD: np.ndarray
) -> dict[str, np.ndarray]:
    """Return each score of all patients, which is exact, before those of the draws (1 + D,).

    With many positives the draws are scored on joined places, and moved by what joining does to all patients.
    """
    once_P1 = np.ones((len(times_PD), 1), dtype=times_PD.dtype)
    exact = rank_scores(ranked, once_P1)
    if ranked.positives_KP.shape[0] > MAX_PLACES:
        ranked = rank_label(y_N, on_places(y_N, p_N, MAX_PLACES), code_N, len(times_PD))
    joined = rank_scores(ranked, np.concatenate([once_P1, times_PD], axis=1))
    return {name: values_D + (exact[name] - values_D[0]) for name, values_D in joined.items()}


def _pooled(found: dict[str, dict[str, np.ndarray]], missing: dict[str, str], name: str) -> dict[str, Any]:
    """Return the weighted mean over the labels that have the score, taken anew in each draw."""
    kept = [(weight, label) for weight, label in zip(METRIC_WEIGHTS, LABELS, strict=True) if label not in missing]
    if not kept:
        return _undefined("no label has both a positive and a negative")
    total = sum(weight for weight, _ in kept)
    value = _value(np.asarray(sum(weight / total * found[label][name] for weight, label in kept)), None)
    if missing:
        without = ", ".join(f"{label} ({why})" for label, why in missing.items())
        value["reason"] = "; ".join([f"without {without}", *([value["reason"]] if "reason" in value else [])])
    return value


def _value(values: np.ndarray, missing: str | None) -> dict[str, Any]:
    """Return the estimate, which stands first, and the interval of the draws behind it."""
    estimate, draws_D = values[0], values[1:]
    if missing:
        return _undefined(missing)
    n_lost = int(np.isnan(draws_D).sum())
    if n_lost == len(draws_D):
        return {"estimate": float(estimate), "low": None, "high": None, "reason": "undefined in every draw"}
    value: dict[str, Any] = asdict(percentile_interval(estimate, draws_D))
    if n_lost:
        value["reason"] = f"undefined in {n_lost} of {len(draws_D)} draws, which are left out"
    return value


def _undefined(reason: str) -> dict[str, Any]:
    return {"estimate": None, "low": None, "high": None, "reason": reason}


def _add_losses(scores: dict[str, Any], y_NL: np.ndarray, p_NL: np.ndarray, code_N: np.ndarray, n_draws: int) -> None:
    losses = np.concatenate([label_losses(y_NL, p_NL), slice_losses(y_NL, p_NL)[:, None]], axis=1)
    *by_label, pooled = loss_intervals(losses, code_N, n_draws)
    for label, interval in zip(LABELS, by_label, strict=True):
        scores["labels"][label][LOG_LOSS] = asdict(interval)
    scores["pooled"][LOG_LOSS] = asdict(pooled)


def _add_calibration(
    scores: dict[str, Any], y_NL: np.ndarray, p_NL: np.ndarray, code_N: np.ndarray, times_PD: np.ndarray
) -> None:
    excess_NL = y_NL.astype(np.float64) - p_NL
    for column, label in enumerate(LABELS):
        bin_N = equal_count_bins(p_NL[:, column])
        error = calibration_error(excess_NL[:, column], bin_N, code_N, times_PD, None)
        scores["labels"][label][CALIBRATION] = asdict(error)
    n_labels = len(LABELS)
    weight_E = np.tile(np.asarray(METRIC_WEIGHTS), len(y_NL))
    bin_E, code_E = equal_count_bins(p_NL.ravel()), np.repeat(code_N, n_labels)
    pooled = calibration_error(excess_NL.ravel(), bin_E, code_E, times_PD, weight_E)
    scores["pooled"][CALIBRATION] = asdict(pooled)
