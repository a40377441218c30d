import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.errors import DataError
from ichtune.labels import N_LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.second_level.along_series import AlongSeries
from ichtune.second_level.base import fit
from ichtune.second_level.smoothing import (
    MAX_SIGMA,
    GaussianSmoothing,
    KernelSmoothing,
    gaussian_weights,
    smoothed,
)
from ichtune.second_level_recipe import KERNELS, SecondLevelRecipe

GAUSSIAN = SecondLevelRecipe(model="gaussian")


def kernel(name="1-3-1"):
    return KernelSmoothing(SecondLevelRecipe(model="kernel", kernel=name))


def test_weights_at_an_edge_are_those_of_the_slices_that_exist() -> None:
    along = AlongSeries(np.array([0, 0, 0, 1]))
    x_R = np.array([1.0, 6.0, 2.0, 9.0])
    expected = [(3 * 1 + 6) / 4, (1 + 3 * 6 + 2) / 5, (6 + 3 * 2) / 4, 9]
    np.testing.assert_allclose(smoothed(x_R, np.array([3.0, 1.0]), along), expected)
    np.testing.assert_allclose(smoothed(np.full(4, 0.7), np.array([1.0, 0.4, 0.1]), along), 0.7)


@pytest.mark.parametrize("name", list(KERNELS))
def test_a_kernel_weighs_log_odds_of_the_mean_and_sums_to_one(generated_series, name) -> None:
    view, y = generated_series(n_series=4)
    below, own, above = KERNELS[name]
    assert below == above
    z_RL = to_logits(view.p_MRL).mean(axis=0)
    p_RL = fit(kernel(name), view, y).predict(view)
    expected = (below * z_RL[1] + own * z_RL[2] + above * z_RL[3]) / sum(KERNELS[name])
    np.testing.assert_allclose(to_logits(p_RL[2]), expected)


def test_a_kernel_helps_where_neighbours_tell_and_learns_nothing(generated_series) -> None:
    view, y = generated_series()
    model = kernel().begin(view, y)
    loss = model.run_epoch()
    assert loss == weighted_log_loss(y, model.predict(view))
    assert loss < weighted_log_loss(y, from_logits(to_logits(view.p_MRL).mean(axis=0)))
    np.testing.assert_array_equal(kernel().predict(view), model.predict(view))
    assert model.state() == ({}, {})
    with pytest.raises(DataError, match="learns nothing, got"):
        kernel().restore(({"sigma_L": np.zeros(N_LABELS)}, {}))


def test_gaussian_weights_fall_off_with_the_width() -> None:
    assert gaussian_weights(0.0).tolist() == [1.0]
    np.testing.assert_allclose(gaussian_weights(2.0)[:3], [1, np.exp(-1 / 8), np.exp(-1 / 2)])
    assert gaussian_weights(MAX_SIGMA)[-1] < 4e-4
    np.testing.assert_allclose(gaussian_weights(1e-3), np.eye(1, 2)[0], atol=1e-300)


def test_each_label_gets_the_width_of_the_least_loss(generated_series) -> None:
    """Noise makes a label wide; one without noise, or whose slices are each on their own, is left alone."""
    view, y = generated_series(n_series=50, n_members=1)
    p_MRL = view.p_MRL.copy()
    rng = np.random.default_rng(0)
    p_MRL[0, :, 1] = np.where(y[:, 1] == 1, 0.9, 0.1)
    y[:, 2] = rng.random(len(y)) < 0.4
    p_MRL[0, :, 2] = from_logits(3 * y[:, 2] - 2 + 0.5 * rng.standard_normal(len(y)))
    view = view.with_predictions(p_MRL)
    model = fit(GaussianSmoothing(GAUSSIAN), view, y)
    assert model.sigma_L_[2] == 0.0
    assert model.sigma_L_[1] < 0.5
    assert (model.sigma_L_[[0, 3, 4, 5]] > 0.5).all()
    along, z_R = AlongSeries(view.series_R), to_logits(p_MRL[0, :, 3])
    grid = np.linspace(0, MAX_SIGMA, 121)
    losses = [
        np.logaddexp(0, (1 - 2 * y[:, 3]) * smoothed(z_R, gaussian_weights(sigma), along)).mean() for sigma in grid
    ]
    found = np.logaddexp(0, (1 - 2 * y[:, 3]) * smoothed(z_R, gaussian_weights(model.sigma_L_[3]), along)).mean()
    assert found <= min(losses) + 1e-4


def test_widths_are_kept_and_checked(generated_series) -> None:
    view, y = generated_series(n_series=10)
    model = GaussianSmoothing(GAUSSIAN)
    with pytest.raises(DataError, match="no widths yet"):
        model.predict(view)
    assert GaussianSmoothing(GAUSSIAN).restore(model.state()).sigma_L_ is None
    loss = model.begin(view, y).run_epoch()
    assert loss == weighted_log_loss(y, model.predict(view))
    arrays, told = model.state()
    restored = GaussianSmoothing(GAUSSIAN).restore((arrays, told))
    np.testing.assert_array_equal(restored.predict(view), model.predict(view))
    for sigma in (np.zeros(5), np.full(6, -1.0), np.full(6, np.nan), np.full(6, 1e9), np.zeros(6, dtype=int)):
        with pytest.raises(DataError, match="kept as sigma_L alone, 6 widths from 0 to 6"):
            GaussianSmoothing(GAUSSIAN).restore(({"sigma_L": sigma}, {}))
    with pytest.raises(DataError, match="kept as sigma_L alone"):
        GaussianSmoothing(GAUSSIAN).restore(({**arrays, "more": np.zeros(1)}, told))
