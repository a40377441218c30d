"""Paired differences of many candidates to one reference, all judged on the same drawn patients in one pass.

Dimension key: N slices, C candidates, P patients, D draws.
"""

from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.scores.bootstrap import LEVEL, N_DRAWS, SEED, Interval, patient_sums, resampled_means
from ichtune.ensemble.scores.patient_draws import percentile_interval
from ichtune.errors import DataError


@dataclass(frozen=True)
class Difference:
    """Mean loss of a candidate minus that of the reference, nats; below 0 is a gain.

    Attributes:
        alone: interval that holds for this candidate, had it been the only one.
        together: interval that holds for all candidates at once: with many, one looks better by chance.
    """

    alone: Interval
    together: Interval


def differences_to_reference(
    loss_NC: np.ndarray, reference_N: np.ndarray, patient_N: np.ndarray, n_draws: int = N_DRAWS
) -> list[Difference]:
    """Compare every candidate with the reference by a paired patient bootstrap.

    Args:
        loss_NC: loss of each slice and candidate (N, C).
        reference_N: loss of each slice under the reference.
        patient_N: the patient of each slice.
        n_draws: bootstrap draws.

    Returns:
        C differences.

    Raises:
        DataError: shapes that differ, or no slices.

    Source: Westfall and Young, Resampling-Based Multiple Testing, 1993 (the largest studentised deviation).
    """
    if loss_NC.ndim != 2 or loss_NC.shape[1] == 0 or len(reference_N) != len(loss_NC):
        raise DataError(
            f"losses must have shape (N, C) with a reference of N, got {loss_NC.shape} and {np.shape(reference_N)}"
        )
    sums_PC = patient_sums(loss_NC, patient_N)
    sums_PC[:, :-1] -= patient_sums(np.asarray(reference_N)[:, None], patient_N)[:, :1]
    estimate_C = sums_PC[:, :-1].sum(axis=0) / sums_PC[:, -1].sum()
    draws_DC = resampled_means(sums_PC, len(sums_PC), n_draws, SEED)
    error_C = draws_DC.std(axis=0)
    deviation_DC = np.abs(draws_DC - estimate_C) / np.where(error_C > 0, error_C, 1.0)
    reach = float(np.quantile(deviation_DC.max(axis=1), LEVEL))
    return [
        Difference(
            percentile_interval(estimate, draws_D),
            Interval(float(estimate), float(estimate - reach * error), float(estimate + reach * error)),
        )
        for estimate, error, draws_D in zip(estimate_C, error_C, draws_DC.T, strict=True)
    ]
