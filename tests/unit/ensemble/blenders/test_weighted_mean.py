import numpy as np
import pytest

from ichtune.ensemble.blenders import weighted_mean
from ichtune.ensemble.blenders.best_member import BestMember
from ichtune.ensemble.blenders.nonnegative import NonNegativeLeastSquares
from ichtune.ensemble.blenders.weighted_mean import identical_members
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


def test_members_that_differ_in_one_slice_alone_are_two(generated):
    p, _, _ = generated(300)
    almost = p[0].copy()
    almost[1, 3] = np.nextafter(almost[1, 3], 1.0)
    assert identical_members(np.stack([p[0], almost, p[0]])) == [[0, 2], [1]]


def test_blocks_of_slices_do_not_change_a_prediction(generated, monkeypatch):
    p, y, _ = generated()
    blender = NonNegativeLeastSquares().fit(p, y)
    whole = blender.predict(p)
    monkeypatch.setattr(weighted_mean, "PREDICT_ROWS", 7)
    np.testing.assert_array_equal(blender.predict(p), whole)
