"""Generated members for the tests of blenders: slices of patients, one true log odds, members that add noise to it."""

from collections.abc import Callable

import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.labels import N_LABELS

Generated = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]


@pytest.fixture(scope="session")
def generated() -> Generated:
    """Return what makes probabilities (M, N, L), labels (N, L) and the patient of each slice."""

    def make(n_patients=60, n_slices=10, noises=(0.6, 1.0, 1.5), seed=0, centre=-2.0):
        rng = np.random.default_rng(seed)
        patient = np.repeat([f"P{i:04d}" for i in range(n_patients)], n_slices)
        shared = np.repeat(rng.standard_normal((n_patients, N_LABELS)), n_slices, axis=0)
        z = centre + 1.2 * shared + 1.2 * rng.standard_normal((len(patient), N_LABELS))
        y = (rng.random(z.shape) < from_logits(z)).astype(float)
        return np.stack([from_logits(z + noise * rng.standard_normal(z.shape)) for noise in noises]), y, patient

    return make
