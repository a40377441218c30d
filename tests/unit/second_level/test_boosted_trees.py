import numpy as np
import pytest

from ichtune.errors import DataError
from ichtune.metrics import weighted_log_loss
from ichtune.second_level.base import fit
from ichtune.second_level.boosted_trees import BoostedTrees
from ichtune.second_level.tree_arrays import TreeArrays, constant_trees
from ichtune.second_level_recipe import SecondLevelRecipe

RECIPE = SecondLevelRecipe(model="hist_gradient_boosting", neighbours=2)


class Stump(BoostedTrees):
    """One split of the first feature, the log odds of the slice itself, at zero."""

    def grow(self, x_RF: np.ndarray, y_R: np.ndarray) -> TreeArrays:
        return TreeArrays(
            root_T=np.array([0]),
            feature_K=np.array([0, 0, 0]),
            threshold_K=np.array([0.0, 0.0, 0.0]),
            missing_below_K=np.array([False, False, False]),
            below_K=np.array([1, 1, 2]),
            above_K=np.array([2, 1, 2]),
            value_K=np.array([0.0, -2.0, 2.0]),
            baseline=np.zeros(1),
        )


@pytest.fixture
def seen(generated_series):
    return generated_series(n_series=12)


def test_labels_are_fitted_one_by_one_and_a_constant_one_gets_its_rate(seen) -> None:
    view, y = seen
    y = y.copy()
    y[:, 1], y[:, 2] = 0.0, 1.0
    model = Stump(RECIPE).begin(view, y)
    loss, p = model.run_epoch(), model.predict(view)
    z = np.log(view.p_MRL / (1 - view.p_MRL)).mean(axis=0)
    np.testing.assert_allclose(p[:, 3], np.where(z[:, 3] > 0, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))))
    np.testing.assert_allclose(p[:, 1], 0.5 / (len(y) + 1))
    np.testing.assert_allclose(p[:, 2], (len(y) + 0.5) / (len(y) + 1))
    assert loss == weighted_log_loss(y, p)


def test_few_slices_are_split_all_the_same(seen) -> None:
    model = Stump(SecondLevelRecipe(model="hist_gradient_boosting", min_slices=40))
    assert [model.least_leaf(n) for n in (5, 100, 799, 800, 100_000)] == [1, 5, 39, 40, 40]


def test_what_was_learnt_needs_the_same_features_and_members(seen) -> None:
    view, y = seen
    model = Stump(RECIPE)
    with pytest.raises(DataError, match="has learnt nothing yet"):
        model.predict(view)
    assert Stump(RECIPE).restore(model.state()).trees_ is None
    arrays, told = fit(model, view, y).state()
    with pytest.raises(DataError, match="learnt from 2 members, got 1"):
        model.predict(view.with_predictions(view.p_MRL[:1]))
    np.testing.assert_array_equal(Stump(RECIPE).restore((arrays, told)).predict(view), model.predict(view))
    other = Stump(SecondLevelRecipe(model="hist_gradient_boosting", neighbours=3))
    for told_wrongly in ({**told, "n_members": 3}, {**told, "features": told["features"][::-1]}):
        with pytest.raises(DataError, match="fitted on other features"):
            Stump(RECIPE).restore((arrays, told_wrongly))
    with pytest.raises(DataError, match="fitted on other features"):
        other.restore((arrays, told))


def test_a_state_that_is_none_is_refused(seen) -> None:
    view, y = seen
    arrays, told = fit(Stump(RECIPE), view, y).state()
    with pytest.raises(DataError, match="n_members, a whole number"):
        Stump(RECIPE).restore((arrays, {**told, "n_members": True}))
    with pytest.raises(DataError, match="trees must be kept by label"):
        Stump(RECIPE).restore(({**arrays, "brain.root_T": np.zeros(1)}, told))
    with pytest.raises(DataError, match="trees must be kept as"):
        Stump(RECIPE).restore(({key: array for key, array in arrays.items() if key != "any.root_T"}, told))


def test_fitting_again_forgets_the_first(seen, generated_series) -> None:
    view, y = seen
    again = fit(fit(Stump(RECIPE), *generated_series(n_series=4, n_members=1)), view, y)
    np.testing.assert_array_equal(again.predict(view), fit(Stump(RECIPE), view, y).predict(view))
    assert constant_trees(0.5).baseline == 0.0
