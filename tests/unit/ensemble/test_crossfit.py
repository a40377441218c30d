import numpy as np
import pytest

from ichtune.ensemble.crossfit import crossfit
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
