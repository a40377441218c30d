from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.errors import ConfigError
from ichtune.metrics import weighted_log_loss
from ichtune.second_level.base import fit
from ichtune.second_level.hist_gradient_boosting import HistGradientBoosting, trees_of
from ichtune.second_level_recipe import SecondLevelRecipe


def problem(n_rows=600, seed=0):
    """Features with holes, one of them of three values; holes tell something too."""
    rng = np.random.default_rng(seed)
    x_RF = rng.standard_normal((n_rows, 6)).astype(np.float32)
    y_R = (rng.random(n_rows) < from_logits(2 * x_RF[:, 0] + x_RF[:, 1] * x_RF[:, 2] - 1)).astype(int)
    x_RF[rng.random(x_RF.shape) < 0.2] = np.nan
    x_RF[(y_R == 1) & (rng.random(n_rows) < 0.5), 3] = np.nan
    x_RF[:, 5] = rng.integers(3, size=n_rows)
    return x_RF, y_R


@pytest.mark.parametrize("settings", [{}, {"max_leaf_nodes": 2}, {"max_iter": 1}, {"max_leaf_nodes": 63}])
def test_trees_predict_what_scikit_learn_predicts(settings) -> None:
    x_RF, y_R = problem()
    fitted = HistGradientBoostingClassifier(
        **{"max_iter": 30, "early_stopping": False, "min_samples_leaf": 5, "random_state": 0, **settings}
    ).fit(x_RF, y_R)
    trees = trees_of(fitted, x_RF)
    new_RF, _ = problem(seed=1)
    on_thresholds = np.repeat(trees.threshold_K[np.isfinite(trees.threshold_K), None], 6, axis=1)
    for x in (x_RF, new_RF, on_thresholds, np.full((1, 6), np.nan)):
        expected = fitted.predict_proba(x)[:, 1]
        np.testing.assert_allclose(from_logits(trees.log_odds(x)), expected, rtol=0, atol=1e-14)


def test_a_fit_of_slices_that_no_feature_tells_apart_is_their_rate() -> None:
    x_RF, y_R = problem(n_rows=30)
    x_RF[:] = 1.0
    model = HistGradientBoosting(SecondLevelRecipe(model="hist_gradient_boosting", rounds=3))
    np.testing.assert_allclose(from_logits(model.grow(x_RF, y_R).log_odds(x_RF)), y_R.mean(), atol=1e-6)


def test_a_feature_that_is_always_missing_is_never_looked_at() -> None:
    x_RF, y_R = problem()
    x_RF[:, 4] = np.nan
    trees = HistGradientBoosting(SecondLevelRecipe(model="hist_gradient_boosting", rounds=5)).grow(x_RF, y_R)
    assert 4 not in trees.feature_K
    assert np.isnan(x_RF[:, 4]).all()


@pytest.mark.parametrize(
    "other",
    [
        SimpleNamespace(),
        SimpleNamespace(_predictors=[[SimpleNamespace(nodes=np.zeros(1))]], _baseline_prediction=0.0),
        SimpleNamespace(_predictors=[[]], _baseline_prediction=0.0),
    ],
)
def test_trees_of_an_unknown_shape_are_an_error_that_says_what_to_do(other) -> None:
    with pytest.raises(ConfigError, match=r"trees of this scikit-learn cannot be read .* or take `model: lightgbm`"):
        trees_of(other, problem()[0])


def test_trees_may_be_surer_than_the_metric_looks() -> None:
    x_RF, y_R = problem()
    fitted = HistGradientBoostingClassifier(max_iter=3).fit(x_RF, y_R)
    fitted._baseline_prediction = fitted._baseline_prediction + 30.0
    assert (trees_of(fitted, x_RF).log_odds(x_RF) > 20).all()


def test_trees_that_mean_something_else_are_noticed() -> None:
    x_RF, y_R = problem()
    fitted = HistGradientBoostingClassifier(max_iter=3).fit(x_RF, y_R)
    fitted._baseline_prediction = fitted._baseline_prediction + 1.0
    other = SimpleNamespace(
        _predictors=fitted._predictors,
        _baseline_prediction=fitted._baseline_prediction - 1.0,
        predict_proba=fitted.predict_proba,
    )
    with pytest.raises(ConfigError, match=r"probabilities that differ by up to 0\.2"):
        trees_of(other, x_RF)


def test_neighbours_in_the_series_are_worth_more_than_the_slice_alone(generated_series) -> None:
    (view, y), (new_view, new_y) = generated_series(n_series=60), generated_series(n_series=30, seed=1)
    losses = []
    for neighbours, aggregates in ((0, False), (2, False), (2, True)):
        recipe = SecondLevelRecipe(
            model="hist_gradient_boosting",
            rounds=20,
            neighbours=neighbours,
            aggregates=aggregates,
            spacing=False,
            learning_rate=0.2,
        )
        losses.append(weighted_log_loss(new_y, fit(HistGradientBoosting(recipe), view, y).predict(new_view)))
    assert losses[1] < 0.8 * losses[0]
    assert losses[2] < 0.8 * losses[0]
