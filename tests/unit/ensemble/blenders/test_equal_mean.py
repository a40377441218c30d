import numpy as np
import pytest

from ichtune.ensemble.blenders.equal_mean import EqualMean
from ichtune.errors import DataError
from ichtune.labels import N_LABELS


def test_is_the_mean_of_probabilities():
    p = np.random.default_rng(0).random((3, 5, N_LABELS))
    blender = EqualMean().fit(p, np.zeros((5, N_LABELS)))
    np.testing.assert_allclose(blender.predict(p), p.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(blender.weights_, 1 / 3)


def test_a_missing_member_is_noticed():
    p = np.full((3, 5, N_LABELS), 0.5)
    with pytest.raises(DataError, match="fitted on 3 members"):
        EqualMean().fit(p, np.zeros((5, N_LABELS))).predict(p[:2])
