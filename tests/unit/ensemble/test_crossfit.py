import numpy as np
import pytest

from ichtune.ensemble.blenders.best_member import BestMember
from ichtune.ensemble.crossfit import crossfit, crossfit_blender
from ichtune.errors import DataError


def test_each_row_is_predicted_once_by_a_fit_that_did_not_see_its_fold():
    fold = np.array([2, 0, 1, 0, 2, 1, 1])
    predicted = []

    def fit_predict(fit_rows, predict_rows):
        assert not set(fold[fit_rows]) & set(fold[predict_rows])
        assert sorted([*fit_rows, *predict_rows]) == list(range(len(fold)))
        predicted.extend(predict_rows)
        return predict_rows[:, None].astype(float)

    np.testing.assert_array_equal(crossfit(fit_predict, fold, 1)[:, 0], np.arange(7))
    assert sorted(predicted) == list(range(7))


def test_one_fold_cannot_be_cross_fitted():
    with pytest.raises(DataError, match="at least two folds"):
        crossfit(lambda fit, predict: predict, np.zeros(4, dtype=int), 1)


def test_a_blender_is_made_anew_for_each_fold():
    """Each member is right on one fold: the best one elsewhere is never the best one here."""
    fold = np.repeat([0, 1], 20)
    y = np.ones((40, 6))
    p = np.stack([np.where(fold[:, None] == own, 0.9, 0.1) * y for own in (0, 1)])
    np.testing.assert_allclose(crossfit_blender(BestMember, p, y, fold), 0.1, atol=1e-6)
    weight = np.where(fold == 0, 1.0, 2.0)
    np.testing.assert_allclose(crossfit_blender(BestMember, p, y, fold, weight, fold), 0.1, atol=1e-6)
