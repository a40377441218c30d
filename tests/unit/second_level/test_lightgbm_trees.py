import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.errors import ConfigError
from ichtune.metrics import weighted_log_loss
from ichtune.second_level.base import fit
from ichtune.second_level.lightgbm_trees import LightGbm, trees_of
from ichtune.second_level.models import create_series_model
from ichtune.second_level_recipe import SecondLevelRecipe

RECIPE = SecondLevelRecipe(model="lightgbm", rounds=15, min_slices=5, learning_rate=0.2)


def problem(n_rows=500, seed=0, with_holes=True):
    rng = np.random.default_rng(seed)
    x_RF = rng.standard_normal((n_rows, 6)).astype(np.float32)
    y_R = (rng.random(n_rows) < from_logits(2 * x_RF[:, 0] + x_RF[:, 1] * x_RF[:, 2] - 1)).astype(float)
    x_RF[:, 5] = rng.integers(3, size=n_rows)
    if with_holes:
        x_RF[rng.random(x_RF.shape) < 0.2] = np.nan
        x_RF[:, 4] = np.nan
    return x_RF, y_R


@pytest.mark.parametrize("with_holes", [True, False])
@pytest.mark.parametrize("leaves", [2, 15, 63])
def test_trees_predict_what_lightgbm_predicts(with_holes, leaves) -> None:
    """Also where a feature has holes that it did not have while it was learnt from, and on thresholds themselves."""
    lightgbm = pytest.importorskip("lightgbm")
    x_RF, y_R = problem(with_holes=with_holes)
    booster = lightgbm.train(
        {"objective": "binary", "num_leaves": leaves, "min_data_in_leaf": 5, "num_threads": 1, "verbosity": -1},
        lightgbm.Dataset(x_RF, label=y_R),
        num_boost_round=20,
    )
    trees = trees_of(booster.dump_model())
    on_thresholds = np.repeat(trees.threshold_K[np.abs(trees.threshold_K) > 1e-30, None], 6, axis=1)
    for x in (x_RF, problem(seed=1)[0], on_thresholds, np.full((1, 6), np.nan)):
        np.testing.assert_allclose(trees.log_odds(x), booster.predict(x, raw_score=True), rtol=0, atol=1e-12)


def test_slices_that_no_feature_tells_apart_are_their_rate() -> None:
    pytest.importorskip("lightgbm")
    x_RF, y_R = problem(n_rows=30)
    x_RF[:] = 1.0
    model = LightGbm(SecondLevelRecipe(model="lightgbm", rounds=3))
    np.testing.assert_allclose(from_logits(model.grow(x_RF, y_R).log_odds(x_RF)), y_R.mean(), atol=1e-6)


def test_it_learns_from_neighbours(generated_series) -> None:
    pytest.importorskip("lightgbm")
    (view, y), (new_view, new_y) = generated_series(n_series=60), generated_series(n_series=30, seed=1)
    alone = SecondLevelRecipe(
        model="lightgbm", rounds=15, learning_rate=0.2, neighbours=0, aggregates=False, spacing=False
    )
    losses = [weighted_log_loss(new_y, fit(LightGbm(r), view, y).predict(new_view)) for r in (alone, RECIPE)]
    assert losses[1] < 0.8 * losses[0]


def test_without_the_package_the_error_says_what_to_install_and_what_needs_nothing(monkeypatch) -> None:
    def absent(name: str):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("ichtune.second_level.lightgbm_trees.importlib", SimpleNamespace(import_module=absent))
    with pytest.raises(ConfigError, match=r"pip install 'ichtune\[trees\]'.*`model: hist_gradient_boosting`"):
        LightGbm(RECIPE)
    assert importlib.import_module("ichtune.second_level.lightgbm_trees")  # importing it needs nothing


def test_splits_of_another_kind_are_refused() -> None:
    split = {"split_feature": 0, "threshold": "1||2", "decision_type": "==", "missing_type": "None"}
    leaves = {"left_child": {"leaf_value": 1.0}, "right_child": {"leaf_value": 2.0}}
    for told in (split, {**split, "decision_type": "<=", "threshold": 1.0, "missing_type": "Zero"}):
        with pytest.raises(ConfigError, match="a split of this LightGBM cannot be read"):
            trees_of({"tree_info": [{"tree_structure": {**told, **leaves}}]})


def test_it_is_offered_by_its_name() -> None:
    pytest.importorskip("lightgbm")
    assert isinstance(create_series_model(RECIPE), LightGbm)
