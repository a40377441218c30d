import numpy as np
import pytest

from ichtune.ensemble.best_member import BestMember
from ichtune.ensemble.nonnegative import NonNegativeLeastSquares
from ichtune.ensemble.weighted_mean import identical_members
from ichtune.errors import ConfigError, DataError


def test_identical_members_are_grouped_in_order(generated):
    p, _, _ = generated(n_patients=3)
    assert identical_members(p[[2, 0, 2, 1, 0]]) == [[0, 2], [1, 4], [3]]


@pytest.mark.parametrize("kind", [BestMember, NonNegativeLeastSquares])
def test_copies_share_the_weight_of_one(generated, kind):
    p, y, _ = generated()
    one, three = kind().fit(p, y), kind().fit(p[[0, 0, 1, 2, 0]], y)
    np.testing.assert_allclose(three.weights_[[0, 1, 4]], np.tile(one.weights_[0] / 3, (3, 1)), atol=1e-9)
    np.testing.assert_allclose(three.predict(p[[0, 0, 1, 2, 0]]), one.predict(p), atol=1e-9)


def test_a_space_must_be_known_and_weights_must_be_there(generated):
    with pytest.raises(ConfigError, match="nnls: unknown space 'odds'"):
        NonNegativeLeastSquares("odds")
    with pytest.raises(DataError, match="nnls blender has no weights yet"):
        NonNegativeLeastSquares().predict(generated()[0])
