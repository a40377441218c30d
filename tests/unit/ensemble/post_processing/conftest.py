"""Predictions that are right on average, of patients whose slices go together; to be spoilt by each test."""

from collections.abc import Callable

import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.ensemble.crossfit import Unseen
from ichtune.labels import N_LABELS

Calibrated = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]


@pytest.fixture(scope="session")
def calibrated() -> Calibrated:
    """Return what makes calibrated log odds (N, L), labels (N, L) and the patient of each slice; ``any`` is its own."""

    def make(n_patients=200, n_slices=10, seed=0, centre=-2.0):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(n_patients), n_slices)
        z = centre + 1.5 * rng.standard_normal((n_patients, N_LABELS))[patient]
        z = z + 1.5 * rng.standard_normal((len(patient), N_LABELS))
        return z, (rng.random(z.shape) < from_logits(z)).astype(float), patient

    return make


@pytest.fixture(scope="session")
def unseen() -> Callable[..., Unseen]:
    """Return what says that nobody saw these predictions' patients: any five folds of patients will do."""

    def make(p_NL, patient_N):
        return Unseen(np.arange(len(p_NL)), np.asarray(patient_N) % 5, p_NL)

    return make
