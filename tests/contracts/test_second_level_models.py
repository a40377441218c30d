"""Every model of the second level keeps the laws of ``ichtune.second_level.base.SeriesModel``."""

import json
from dataclasses import fields, replace
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
from safetensors.numpy import load, save

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.errors import DataError
from ichtune.labels import N_LABELS
from ichtune.metrics import prior_predictions, weighted_log_loss
from ichtune.second_level.base import SeriesModel, fit
from ichtune.second_level.models import SECOND_LEVEL_MODELS, create_series_model
from ichtune.second_level.views import METADATA_COLUMNS, SeriesView
from ichtune.second_level_recipe import MODELS, SEQUENCES, SMOOTHERS, TREES, SecondLevelRecipe

NEEDS = {"lightgbm": "lightgbm"}
OF_SEQUENCES = {"hidden": 8, "heads": 2, "layers": 1, "epochs": 3, "lr": 2e-2, "batch_size": 8}
OF_TREES = {"rounds": 8, "learning_rate": 0.2, "min_slices": 10, "neighbours": 2}
SETTINGS = {name: OF_SEQUENCES if name in SEQUENCES else OF_TREES if name in TREES else {} for name in MODELS}


def recipe_of(name, **settings):
    return SecondLevelRecipe(model=name, **{**SETTINGS[name], **settings})


def model_of(name, **settings) -> SeriesModel:
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    return create_series_model(recipe_of(name, **settings))


@cache
def generated(n_series=40, seed=0, n_members=2):
    """Runs of positive slices, each seen with noise of its own; some series of one slice, some without positions."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(6, 13, n_series)
    lengths[0] = 1
    series = np.repeat(np.arange(n_series), lengths)
    place = np.arange(len(series)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    first, long = rng.integers(0, 6, (n_series, N_LABELS)), rng.integers(0, 6, (n_series, N_LABELS))
    y = (place[:, None] >= first[series]) & (place[:, None] < (first + long)[series])
    z = np.where(y, 1.5, -2.5) + 1.5 * rng.standard_normal((n_members, *y.shape))
    view = SeriesView(
        image_ids=np.array([f"S{row}" for row in range(len(series))], dtype=object),
        patient_R=np.array([f"P{one}" for one in series], dtype=object),
        series_R=series,
        z_mm_R=np.where(series % 7 == 3, np.nan, 5.0 * place),
        p_MRL=from_logits(z),
        metadata_RC=np.where(rng.random((n_series, len(METADATA_COLUMNS))) < 0.2, np.nan, 1.0)[series],
    )
    return view, y.astype(np.float64)


@cache
def fitted(name) -> SeriesModel:
    """A model that several laws look at; none changes it."""
    return fit(model_of(name), *generated())


def through_files(state):
    """What is left of a state after a file: the arrays of safetensors, and JSON."""
    arrays, told = state
    return load(save({key: np.ascontiguousarray(array) for key, array in arrays.items()})), json.loads(
        json.dumps(told, allow_nan=False)
    )


def test_the_table_offers_what_a_recipe_may_name() -> None:
    assert sorted(SECOND_LEVEL_MODELS) == sorted(MODELS)


@pytest.mark.parametrize("name", SECOND_LEVEL_MODELS)
class TestLaws:
    def test_predictions_are_probabilities_of_every_slice_and_better_than_the_rates(self, name):
        (_, y), (view, new_y) = generated(), generated(seed=1)
        p = fitted(name).predict(view)
        assert p.shape == new_y.shape
        assert p.dtype == np.float64
        assert p.min() >= 0
        assert p.max() <= 1
        assert weighted_log_loss(new_y, p) < 0.9 * weighted_log_loss(new_y, prior_predictions(y, len(new_y)))

    @pytest.mark.filterwarnings("error::RuntimeWarning")
    def test_hard_members_unknown_positions_and_constant_labels_stay_finite(self, name):
        view, y = generated(n_series=12)
        y = y.copy()
        y[:, 1], y[:, 2] = 0.0, 1.0
        p = view.p_MRL.copy()
        p[0] = p[0] > 0.5
        p[1, :, 0], p[1, :, 3] = 0.0, 1.0
        unknown = replace(
            view, p_MRL=p, z_mm_R=np.full(len(view), np.nan), metadata_RC=np.full_like(view.metadata_RC, np.nan)
        )
        switches = {} if name in SMOOTHERS else {"metadata": True}
        model = fit(model_of(name, **switches), unknown, y)
        p_RL = model.predict(unknown)
        assert np.isfinite(p_RL).all()
        assert ((p_RL >= 0) & (p_RL <= 1)).all()

    def test_a_slice_is_predicted_from_its_own_series_alone(self, name):
        view, _ = generated(seed=1)
        whole = fitted(name).predict(view)
        tolerance = 1e-5 if fitted(name).needs_torch else 0.0
        for series in (0, 3, int(view.series_R[-1])):
            own = view.series_R == series
            np.testing.assert_allclose(fitted(name).predict(view.take(own)), whole[own], rtol=0, atol=tolerance)

    def test_neighbours_matter(self, name):
        view, _ = generated(seed=1)
        row = int(view.starts[5]) + 2
        p = view.p_MRL.copy()
        p[:, row + 1] = 1.0 - p[:, row + 1]
        changed = fitted(name).predict(view.with_predictions(p)) != fitted(name).predict(view)
        assert changed[view.series_R == 5].sum() > N_LABELS

    def test_no_slices_have_no_predictions(self, name):
        view, _ = generated(seed=1)
        assert fitted(name).predict(view.take(np.zeros(len(view), dtype=bool))).shape == (0, N_LABELS)

    def test_the_same_recipe_and_view_give_the_same_model_and_are_left_alone(self, name):
        view, y = generated()
        kept = {field.name: np.copy(getattr(view, field.name)) for field in fields(view) if field.name != "e_RD"}
        kept_y = y.copy()
        np.testing.assert_array_equal(fit(model_of(name), view, y).predict(view), fitted(name).predict(view))
        for key, before in kept.items():
            np.testing.assert_array_equal(getattr(view, key), before)
        np.testing.assert_array_equal(y, kept_y)

    def test_what_it_learnt_goes_through_a_file_and_predicts_the_same_bits(self, name):
        view, _ = generated(seed=1)
        restored = model_of(name).restore(through_files(fitted(name).state()))
        np.testing.assert_array_equal(restored.predict(view), fitted(name).predict(view))

    def test_its_weights_predict_the_same_bits(self, name):
        view, _ = generated(seed=1)
        restored = model_of(name).restore(through_files(fitted(name).weights()))
        np.testing.assert_array_equal(restored.predict(view), fitted(name).predict(view))

    def test_it_goes_on_between_two_epochs_to_the_same_bits(self, name):
        view, y = generated()
        first = model_of(name).begin(view, y)
        if first.n_epochs > 1:
            first.run_epoch()
        second = model_of(name).restore(through_files(first.state())).begin(view, y)
        for _ in range(first.n_epochs - (first.n_epochs > 1)):
            second.run_epoch()
        np.testing.assert_array_equal(second.predict(view), fitted(name).predict(view))

    def test_a_state_of_something_else_is_refused(self, name):
        with pytest.raises(DataError):
            model_of(name).restore(({"weights_of_another": np.zeros(3)}, {"kind": "another"}))

    def test_metadata_alone_read_no_predictions(self, name):
        if name in SMOOTHERS:
            pytest.skip("smooths predictions")
        view, y = generated(n_series=12)
        model = fit(model_of(name, metadata_only=True), view, y)
        others = view.with_predictions(np.full_like(view.p_MRL, 0.5))
        np.testing.assert_array_equal(model.predict(others), model.predict(view))
