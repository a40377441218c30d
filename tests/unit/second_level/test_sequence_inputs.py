from dataclasses import replace

import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.errors import DataError
from ichtune.labels import N_LABELS
from ichtune.second_level.sequence_inputs import LIMIT, SliceInputs, fit_scaling
from ichtune.second_level.views import METADATA_COLUMNS, SeriesView
from ichtune.second_level_recipe import SecondLevelRecipe

N_METADATA = len(METADATA_COLUMNS)


def view_of_log_odds(z_MR: list[list[float]], lengths: list[int], z_mm: list[float]) -> SeriesView:
    """A view whose members give every label the same log odds."""
    n_rows = sum(lengths)
    return SeriesView(
        image_ids=np.array([f"S{i}" for i in range(n_rows)], dtype=object),
        patient_R=np.array(["P"] * n_rows, dtype=object),
        series_R=np.repeat(np.arange(len(lengths)), lengths),
        z_mm_R=np.array(z_mm),
        p_MRL=np.repeat(from_logits(np.array(z_MR))[..., None], N_LABELS, axis=2),
        metadata_RC=np.arange(n_rows * N_METADATA, dtype=float).reshape(n_rows, N_METADATA),
    )


def small_view() -> SeriesView:
    """A series of four slices and one of a single slice, seen by two members."""
    z_mm = [0.0, 5.0, 7.0, 12.0, 3.0]
    return view_of_log_odds([[1.0, 2.0, 4.0, 7.0, 0.0], [3.0, 2.0, 0.0, 1.0, 2.0]], [4, 1], z_mm)


WHOLE = np.arange(5), np.array([4, 1])


def test_log_odds_of_members_come_first_then_their_mean() -> None:
    inputs = SliceInputs(small_view(), SecondLevelRecipe(deltas=False, spacing=False))
    raw = inputs.raw(*WHOLE)
    assert raw.dtype == np.float32
    np.testing.assert_allclose(raw[:, ::N_LABELS], [[1, 3, 2], [2, 2, 2], [4, 0, 2], [7, 1, 4], [0, 2, 1]], atol=1e-6)
    np.testing.assert_allclose(inputs.mean_RL[:, 0], [2, 2, 2, 4, 1], atol=1e-12)


def test_deltas_are_to_the_slices_before_and_after_within_the_series() -> None:
    raw = SliceInputs(small_view(), SecondLevelRecipe(spacing=False)).raw(*WHOLE)
    before, after = raw[:, 3 * N_LABELS : 6 * N_LABELS : N_LABELS], raw[:, 6 * N_LABELS :: N_LABELS]
    np.testing.assert_allclose(before[:, 0], [0, 1, 2, 3, 0], atol=1e-6)
    np.testing.assert_allclose(after[:, 0], [-1, -2, -3, 0, 0], atol=1e-6)
    np.testing.assert_allclose(before[:, 2], [0, 0, 0, 2, 0], atol=1e-6)


def test_neighbours_are_those_that_are_shown() -> None:
    """Every second slice, upside down: deltas and spacing are between what is left, in its new order."""
    raw = SliceInputs(small_view(), SecondLevelRecipe()).raw(np.array([2, 0]), np.array([2]))
    np.testing.assert_allclose(raw[:, 3 * N_LABELS], [0, -3], atol=1e-6)
    np.testing.assert_allclose(raw[:, 6 * N_LABELS], [3, 0], atol=1e-6)
    np.testing.assert_array_equal(raw[:, -3:], [[-1, np.nan, 7], [1, 7, np.nan]])


def test_spacing_is_place_and_distance_either_way() -> None:
    raw = SliceInputs(small_view(), SecondLevelRecipe(deltas=False)).raw(*WHOLE)[:, -3:]
    np.testing.assert_allclose(raw[:, 0], [-1, -1 / 3, 1 / 3, 1, 0], atol=1e-6)
    np.testing.assert_array_equal(raw[:, 1], [np.nan, 5, 2, 5, np.nan])
    np.testing.assert_array_equal(raw[:, 2], [5, 2, 5, np.nan, np.nan])


def test_metadata_comes_last_and_only_where_it_is_asked_for() -> None:
    view = small_view()
    with_metadata = SliceInputs(view, SecondLevelRecipe(metadata=True))
    without = SliceInputs(view, SecondLevelRecipe()).raw(*WHOLE)
    raw = with_metadata.raw(*WHOLE)
    np.testing.assert_array_equal(raw[:, -N_METADATA:], view.metadata_RC)
    np.testing.assert_array_equal(raw[:, :-N_METADATA], without)
    assert with_metadata.n_optional() == 2 + N_METADATA


def test_metadata_only_sees_nothing_else() -> None:
    view = small_view()
    inputs = SliceInputs(view, SecondLevelRecipe(metadata_only=True))
    np.testing.assert_array_equal(inputs.raw(*WHOLE), view.metadata_RC)
    assert inputs.mean_RL is None
    assert inputs.e_RD.shape == (5, 0)
    assert inputs.n_optional() == N_METADATA


def test_hard_probabilities_are_finite() -> None:
    view = small_view()
    hard = replace(view, p_MRL=np.round(view.p_MRL))
    raw = SliceInputs(hard, SecondLevelRecipe(spacing=False)).raw(*WHOLE)
    assert np.isfinite(raw).all()
    np.testing.assert_allclose(raw[0, 0], to_logits(np.array(1.0)), rtol=1e-6)


def test_embeddings_that_are_asked_for_must_be_there() -> None:
    view = small_view()
    with pytest.raises(DataError, match="8 embedding components"):
        SliceInputs(view, SecondLevelRecipe(embeddings=8))
    e_RD = np.ones((5, 8), dtype=np.float32)
    assert SliceInputs(replace(view, e_RD=e_RD), SecondLevelRecipe(embeddings=8)).e_RD.shape == (5, 8)
    assert SliceInputs(replace(view, e_RD=e_RD), SecondLevelRecipe()).e_RD.shape == (5, 0)


def test_no_member_is_refused() -> None:
    view = small_view()
    with pytest.raises(DataError, match="at least one member"):
        SliceInputs(replace(view, p_MRL=view.p_MRL[:0]), SecondLevelRecipe())


def test_scaling_standardises_whatever_the_parts_are() -> None:
    x_SF = np.random.default_rng(0).normal(3.0, 2.0, (50, 4)).astype(np.float32)
    scaling = fit_scaling([x_SF[:7], x_SF[7:]])
    np.testing.assert_allclose(scaling(x_SF).mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(scaling(x_SF).std(axis=0), 1.0, atol=1e-5)


def test_what_is_missing_is_nought_and_flagged() -> None:
    x_SF = np.array([[1.0, 4.0, np.nan], [3.0, np.nan, np.nan], [5.0, 6.0, np.nan]], dtype=np.float32)
    scaling = fit_scaling([x_SF], n_optional=2)
    assert scaling.n_outputs == 5
    out = scaling(x_SF)
    np.testing.assert_allclose(out[:, 1], [-1, 0, 1], atol=1e-6)
    np.testing.assert_array_equal(out[:, 2:], [[0, 0, 1], [0, 1, 1], [0, 0, 1]])


def test_a_constant_column_is_not_blown_up_and_nothing_is_far_outside() -> None:
    x_SF = np.full((9, 2), 0.4883, dtype=np.float32)
    x_SF[:, 1] = np.arange(9)
    out = fit_scaling([x_SF])(np.array([[0.4883, 1e9], [1.4883, -1e9]], dtype=np.float32))
    np.testing.assert_allclose(out, [[0.0, LIMIT], [1.0, -LIMIT]], atol=1e-5)


def test_another_number_of_members_is_refused() -> None:
    view, recipe = small_view(), SecondLevelRecipe()
    scaling = fit_scaling([SliceInputs(view, recipe).raw(*WHOLE)], 2)
    with pytest.raises(DataError, match="same members"):
        scaling(SliceInputs(replace(view, p_MRL=view.p_MRL[:1]), recipe).raw(*WHOLE))
