"""Targets: labels as they are, and each key of the loss beside a plain reading of it, slice by slice."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ichtune.data.targets import make_targets
from ichtune.errors import DataError
from ichtune.labels import LABELS, METRIC_WEIGHTS, N_LABELS
from ichtune.recipe import Recipe
from ichtune.tables import P_COLUMNS

WEIGHTS = (3.0, 1.0, 0.0, 2.0, 1.0, 1.0)
SHARES = np.array(WEIGHTS) / 8


def table(seed: int = 0) -> pd.DataFrame:
    """Series of 1 to 6 slices in shuffled order, some of them without labels, and a refused file."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for series, n in zip("abcdef", (6, 5, 4, 3, 2, 1), strict=True):
        for rank in range(n):
            is_labelled = series != "b" and (series, rank) != ("a", 3)
            y = (rng.random(N_LABELS) < 0.5).astype(float) if is_labelled else np.full(N_LABELS, math.nan)
            rows.append(
                {"image_id": f"{series}{rank}", "series_instance_uid": series, "slice_rank": rank}
                | {"is_labelled": is_labelled}
                | dict(zip(LABELS, y, strict=True))
            )
    rows.append(
        rows[0] | {"image_id": "refused", "slice_rank": -1, "is_labelled": False} | dict.fromkeys(LABELS, math.nan)
    )
    frame = pd.DataFrame(rows).sample(frac=1, random_state=seed).reset_index(drop=True)
    return frame.assign(n_at_position=1, instance_number=0.0)


def beside(slices: pd.DataFrame, row: int, offset: int) -> int | None:
    """Row of the slice so many ranks away in the same series."""
    own = slices.loc[row]
    is_it = (slices["series_instance_uid"] == own["series_instance_uid"]) & (
        slices["slice_rank"] == own["slice_rank"] + offset
    )
    return (
        int(np.flatnonzero(is_it)[0])
        if own["slice_rank"] >= 0 and is_it.any() and own["slice_rank"] + offset >= 0
        else None
    )


def pseudo_of(slices: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """Probabilities for the unlabelled slices of series b, in another order."""
    ids = slices.loc[slices["series_instance_uid"] == "b", "image_id"].to_numpy()[::-1]
    p = np.random.default_rng(seed).random((len(ids), N_LABELS))
    return pd.DataFrame(p, columns=list(P_COLUMNS)).assign(image_id=ids)


def test_labels_are_learnt_as_they_are_with_weights_that_sum_to_one() -> None:
    slices = table()
    targets = make_targets(slices, Recipe())
    is_labelled = slices["is_labelled"].to_numpy()
    assert targets.y_NK.shape == targets.weight_NK.shape == (len(slices), N_LABELS)
    assert targets.y_NK.dtype == targets.weight_NK.dtype == np.float32
    np.testing.assert_array_equal(targets.y_NK[is_labelled], slices.loc[is_labelled, list(LABELS)])
    np.testing.assert_allclose(
        targets.weight_NK[is_labelled], np.tile(np.array(METRIC_WEIGHTS) / 7, (is_labelled.sum(), 1))
    )
    assert (targets.y_NK[~is_labelled] == 0).all()
    assert (targets.weight_NK[~is_labelled] == 0).all()


def test_free_weights_are_shares_of_their_sum() -> None:
    targets = make_targets(table(), Recipe(loss_weights=WEIGHTS))
    np.testing.assert_allclose(targets.weight_NK.max(axis=0), SHARES)


def test_the_slices_beside_are_targets_of_their_own() -> None:
    slices = table()
    plain = make_targets(slices, Recipe(loss_weights=WEIGHTS))
    targets = make_targets(slices, Recipe(loss_weights=WEIGHTS, neighbour_targets=0.5))
    assert targets.y_NK.shape == (len(slices), 3 * N_LABELS)
    np.testing.assert_array_equal(targets.y_NK[:, :N_LABELS], plain.y_NK)
    np.testing.assert_array_equal(targets.weight_NK[:, :N_LABELS], plain.weight_NK)
    for row in range(len(slices)):
        for block, offset in ((1, -1), (2, 1)):
            there = beside(slices, row, offset)
            is_known = there is not None and slices.loc[there, "is_labelled"]
            columns = slice(block * N_LABELS, (block + 1) * N_LABELS)
            expected = slices.loc[there, list(LABELS)] if is_known else np.zeros(N_LABELS)
            np.testing.assert_array_equal(targets.y_NK[row, columns], np.array(expected, dtype=float))
            np.testing.assert_allclose(targets.weight_NK[row, columns], 0.5 * SHARES * is_known)


def test_a_bleed_is_soft_where_it_begins_and_ends() -> None:
    slices = table()
    y_NK = make_targets(slices, Recipe(boundary_softness=0.2)).y_NK
    n_soft = 0
    for row in np.flatnonzero(slices["is_labelled"]):
        around = [there for there in (beside(slices, row, -1), beside(slices, row, 1)) if there is not None]
        for place, label in enumerate(LABELS):
            y = slices.loc[row, label]
            is_boundary = any(slices.loc[there, label] == 1 - y for there in around)
            n_soft += is_boundary
            assert y_NK[row, place] == pytest.approx(abs(y - 0.2) if is_boundary else y)
    assert n_soft > 20


def test_the_end_of_a_series_is_no_boundary_and_another_series_no_neighbour() -> None:
    slices = table()
    slices[list(LABELS)] = np.repeat((slices["series_instance_uid"] == "c").to_numpy(float)[:, None], N_LABELS, axis=1)
    plain, soft = (make_targets(slices, Recipe(boundary_softness=s)) for s in (0.0, 0.4))
    np.testing.assert_array_equal(soft.y_NK, plain.y_NK)


def test_smoothing_comes_after_the_boundaries() -> None:
    slices = table()
    is_labelled = slices["is_labelled"].to_numpy()
    before = make_targets(slices, Recipe(boundary_softness=0.2)).y_NK
    after = make_targets(slices, Recipe(boundary_softness=0.2, label_smoothing=0.1)).y_NK
    np.testing.assert_allclose(after[is_labelled], before[is_labelled] * 0.9 + 0.05, rtol=1e-6)
    assert (after[~is_labelled] == 0).all()


def test_positive_slices_weigh_more() -> None:
    slices = table()
    factors = np.array([4.0, 2.0, 3.0, 1.0, 0.5, 1.0])
    keys = {"loss_weights": WEIGHTS, "boundary_softness": 0.25}
    plain = make_targets(slices, Recipe(**keys))
    weighted = make_targets(slices, Recipe(**keys, positive_weights=tuple(factors), calibration="prior_shift"))
    expected = plain.weight_NK * (plain.y_NK * factors + (1 - plain.y_NK))
    np.testing.assert_allclose(weighted.weight_NK, expected, rtol=1e-6)
    # what is said for a bleed counts the factor times more, soft or not; what is said against it counts as before
    for_it, against = weighted.weight_NK * weighted.y_NK, weighted.weight_NK * (1 - weighted.y_NK)
    np.testing.assert_allclose(for_it, plain.weight_NK * plain.y_NK * factors, rtol=1e-6)
    np.testing.assert_allclose(against, plain.weight_NK * (1 - plain.y_NK), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_the_answer_that_soft_and_weighted_labels_are_fitted_by_is_undone_exactly(smoothing: float) -> None:
    slices = table()
    keys = {"label_smoothing": smoothing, "boundary_softness": 0.2}
    plain = make_targets(slices, Recipe(**keys))
    recipe = Recipe(**keys, positive_weights=(10, 2, 1, 3, 0.5, 4), calibration="prior_shift")
    weighted = make_targets(slices, recipe)
    fitted_L = (weighted.weight_NK * weighted.y_NK).sum(axis=0) / weighted.weight_NK.sum(axis=0)
    odds_L = fitted_L / (1 - fitted_L) / np.array(recipe.positive_weights)
    true_L = (plain.weight_NK * plain.y_NK).sum(axis=0) / plain.weight_NK.sum(axis=0)
    np.testing.assert_allclose(odds_L / (1 + odds_L), true_L, rtol=1e-5)


@pytest.mark.parametrize(("threshold", "weight"), [(0.0, 1.0), (0.0, 0.25), (0.6, 2.0)])
def test_pseudo_labels_teach_the_unlabelled_slices_that_they_name(threshold: float, weight: float) -> None:
    slices = table()
    pseudo = pseudo_of(slices)
    recipe = Recipe(loss_weights=WEIGHTS, pseudo_threshold=threshold, pseudo_weight=weight)
    plain, targets = make_targets(slices, recipe), make_targets(slices, recipe, pseudo)
    is_taught = (slices["series_instance_uid"] == "b").to_numpy()
    p = pseudo.set_index("image_id").loc[slices.loc[is_taught, "image_id"], list(P_COLUMNS)].to_numpy()
    np.testing.assert_allclose(targets.y_NK[is_taught], p > threshold if threshold else p, rtol=1e-6)
    np.testing.assert_allclose(targets.weight_NK[is_taught], np.tile(weight * SHARES, (5, 1)))
    np.testing.assert_array_equal(targets.y_NK[~is_taught], plain.y_NK[~is_taught])
    np.testing.assert_array_equal(targets.weight_NK[~is_taught], plain.weight_NK[~is_taught])


def test_pseudo_labels_are_targets_of_the_slices_beside_them_too() -> None:
    slices = table()
    pseudo = pseudo_of(slices)
    targets = make_targets(slices, Recipe(neighbour_targets=0.5, pseudo_weight=0.5), pseudo)
    row = int(np.flatnonzero(slices["image_id"] == "b1")[0])
    p = pseudo.set_index("image_id").loc["b0", list(P_COLUMNS)].to_numpy(float)
    np.testing.assert_allclose(targets.y_NK[row, N_LABELS : 2 * N_LABELS], p, rtol=1e-6)
    np.testing.assert_allclose(targets.weight_NK[row, N_LABELS : 2 * N_LABELS].sum(), 0.25)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_id": "nowhere"}, r"'nowhere' is one of a slice that the workspace does not have"),
        ({"image_id": "c1"}, r"'c1' is one of a labelled slice"),
        ({"image_id": "b3"}, r"'b3' is one given twice"),
        ({"p_any": 1.5}, r"'b4' is one that is no probability"),
        ({"p_subdural": math.nan}, r"'b4' is one that is no probability"),
    ],
)
def test_a_wrong_pseudo_label_is_named(changed: dict[str, Any], message: str) -> None:
    slices = table()
    pseudo = pseudo_of(slices).sort_values("image_id", ascending=False, ignore_index=True)
    pseudo = pseudo.assign(**{key: pseudo[key].where(pseudo.index > 0, value) for key, value in changed.items()})
    with pytest.raises(DataError, match=message):
        make_targets(slices, Recipe(), pseudo)
