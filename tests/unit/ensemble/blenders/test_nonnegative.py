import numpy as np
from scipy.optimize import nnls

from ichtune.ensemble.blenders.nonnegative import NonNegativeLeastSquares


def test_weights_are_those_of_scipy_over_the_rows_scaled_to_one(generated):
    p, y, _ = generated(noises=(0.6, 1.0, 1.5, 3.0))
    weights = NonNegativeLeastSquares().fit(p, y).weights_
    for label in range(y.shape[1]):
        direct, _ = nnls(p[:, :, label].T, y[:, label])
        np.testing.assert_allclose(weights[:, label], direct / direct.sum(), atol=1e-6)


def test_members_that_predict_nothing_weigh_alike():
    y = np.zeros((20, 6))
    p = np.stack([np.full((20, 6), 0.2), np.full((20, 6), 0.4)])
    np.testing.assert_allclose(NonNegativeLeastSquares().fit(p, y).weights_, 0.5)
