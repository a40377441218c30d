import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import to_logits
from ichtune.errors import DataError
from ichtune.second_level.one_epoch import mean_log_odds, spread_of_log_odds
from ichtune.second_level.smoothing import KernelSmoothing
from ichtune.second_level_recipe import SecondLevelRecipe


def test_what_is_learnt_from_is_checked(generated_series) -> None:
    view, y = generated_series(n_series=3)
    model = KernelSmoothing(SecondLevelRecipe(model="kernel"))
    with pytest.raises(DataError, match="kernel has nothing to learn from: call begin"):
        model.run_epoch()
    for labels in (y[1:], y[:, :5], y + 0.5):
        with pytest.raises(DataError, match="labels must be 0 or 1 for each of the view's"):
            model.begin(view, labels)
    with pytest.raises(DataError, match="at least one slice"):
        model.begin(view.take(np.zeros(len(view), dtype=bool)), y[:0])
    with pytest.raises(DataError, match="kernel needs the predictions of at least one member"):
        model.begin(view.with_predictions(view.p_MRL[:0]), y)
    assert model.begin(view, y).seen() == (view, y)


def test_mean_and_spread_are_those_of_log_odds_and_know_no_other_slice(generated_series) -> None:
    view, _ = generated_series(n_series=6, n_members=9)
    z_MRL = to_logits(view.p_MRL)
    np.testing.assert_allclose(mean_log_odds(view.p_MRL, 4), z_MRL[:, :, 4].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(spread_of_log_odds(view.p_MRL, 4), z_MRL[:, :, 4].std(axis=0), rtol=1e-12)
    for number in (mean_log_odds, spread_of_log_odds):
        assert number(view.p_MRL[:, 7:8], 4)[0] == number(view.p_MRL, 4)[7]
