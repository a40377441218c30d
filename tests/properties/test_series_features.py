"""What holds for the features of any series: they are what they say, read one series, and know up from down."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ichtune.ensemble.blenders.logits import to_logits
from ichtune.labels import N_LABELS
from ichtune.second_level.features import DECLARED, KINDS, FeatureTable, features_of
from ichtune.second_level.views import METADATA_COLUMNS, SeriesView
from ichtune.second_level_recipe import SecondLevelRecipe

#: Everything that there is, neighbours as far as three slices away.
EVERYTHING = SecondLevelRecipe(model="hist_gradient_boosting", neighbours=3, metadata=True)
LABEL = 2
SIDES = {"below": "above", "above": "below"}
#: Few values, so that there are ties; hard ones among them.
VALUES = np.array([0.0, 1e-3, 0.2, 0.5, 0.7, 0.97, 1.0])


def view_of_lengths(lengths, n_members=2, seed=0, with_ties=False):
    rng = np.random.default_rng(seed)
    series = np.repeat(np.arange(len(lengths)), lengths)
    shape = (n_members, len(series), N_LABELS)
    rows = np.arange(len(series))
    z_mm = np.concatenate([np.cumsum(rng.uniform(0.6, 9.0, length)) for length in lengths])
    z_mm[rng.random(len(series)) < 0.1] = np.nan
    return SeriesView(
        image_ids=np.array([f"S{row}" for row in rows], dtype=object),
        patient_R=series.astype(object),
        series_R=series,
        z_mm_R=z_mm,
        p_MRL=rng.choice(VALUES, shape) if with_ties else rng.random(shape),
        metadata_RC=rng.standard_normal((len(lengths), len(METADATA_COLUMNS)))[series],
    )


@st.composite
def views(draw):
    lengths = draw(st.lists(st.integers(1, 24), min_size=1, max_size=4))
    n_members, seed = draw(st.integers(1, 3)), draw(st.integers(0, 2**31 - 1))
    return view_of_lengths(lengths, n_members, seed, draw(st.booleans()))


def computed(view, recipe=EVERYTHING):
    features = features_of(recipe, len(view.p_MRL), LABEL)
    return features, FeatureTable(view).matrix(features)


def as_defined(view, feature, row):
    """One number of one slice, from the definition."""
    rows = np.flatnonzero(view.series_R == view.series_R[row])
    place, last = row - rows[0], len(rows) - 1
    z_mm = view.z_mm_R[rows]
    if feature.source == "metadata":
        return view.metadata_RC[row, METADATA_COLUMNS.index(feature.statistic)]
    if feature.kind == "slices":
        told = {"below": place, "above": last - place, "all": last + 1}
        return told.get(feature.statistic, (place - last / 2) / (last + 1))
    if feature.kind == "spacing_mm":
        other = place - 1 if feature.statistic == "below" else place + 1
        return abs(z_mm[other] - z_mm[place]) if 0 <= other <= last else np.nan
    if feature.kind == "extent_mm":
        return abs(z_mm[0 if feature.statistic == "below" else last] - z_mm[place])
    z_M = [to_logits(p_RL[rows, feature.label]) for p_RL in view.p_MRL]
    if feature.source == "spread":
        return np.std([z[place] for z in z_M])
    z = np.mean(z_M, axis=0) if feature.source == "mean" else z_M[feature.member]
    return of_log_odds(z, place, feature)


def of_log_odds(z, place, feature):
    other, last = place + feature.width, len(z) - 1
    if feature.kind in ("value", "difference"):
        there = z[other] if 0 <= other <= last else np.nan
        return there if feature.kind == "value" else z[place] - there
    if feature.kind == "rank":
        return (np.sum(z < z[place]) + 0.5 * np.sum(z == z[place])) / len(z)
    if feature.kind == "series":
        return np.mean(z > 0) if feature.statistic == "share" else getattr(np, feature.statistic)(z)
    if feature.kind == "rolling":
        reach = feature.width // 2
        return getattr(np, feature.statistic)(z[max(0, place - reach) : place + reach + 1])
    seen = z[: place + 1][::-1] if feature.statistic == "below" else z[place:]
    if feature.kind == "exponential":
        return np.average(seen, weights=0.5 ** (np.arange(len(seen)) / feature.width))
    assert feature.kind == "peak"
    return next((away for away, value in enumerate(seen) if value == z.max()), np.nan)


@settings(max_examples=12, deadline=None)
@given(views())
def test_every_feature_of_every_slice_is_what_its_definition_says(view):
    features, x_RF = computed(view)
    for column, feature in enumerate(features):
        expected = [as_defined(view, feature, row) for row in range(len(view))]
        np.testing.assert_allclose(x_RF[:, column], expected, rtol=2e-6, atol=2e-6, err_msg=feature.name)


@settings(max_examples=40, deadline=None)
@given(views(), st.data())
def test_a_series_has_the_same_features_alone_and_among_others_in_any_order(view, data):
    _, x_RF = computed(view)
    order = data.draw(st.permutations(range(view.series_R[-1] + 1)))
    rows = np.concatenate([np.flatnonzero(view.series_R == series) for series in order])
    moved = SeriesView(
        view.image_ids[rows],
        view.patient_R[rows],
        np.repeat(np.arange(len(order)), view.lengths[list(order)]),
        view.z_mm_R[rows],
        view.p_MRL[:, rows],
        view.metadata_RC[rows],
    )
    np.testing.assert_array_equal(computed(moved)[1], x_RF[rows])
    alone = view.series_R == order[0]
    np.testing.assert_array_equal(computed(view.take(alone))[1], x_RF[alone])


@settings(max_examples=40, deadline=None)
@given(views(), st.integers(0, 2**31 - 1))
def test_nothing_that_happens_in_another_series_is_read(view, seed):
    _, x_RF = computed(view)
    other, own = view_of_lengths(view.lengths, len(view.p_MRL), seed), view.series_R == view.series_R[-1] // 2
    spoilt = replace(
        view,
        z_mm_R=np.where(own, view.z_mm_R, np.nan),
        p_MRL=np.where(own[None, :, None], view.p_MRL, other.p_MRL),
        metadata_RC=np.where(own[:, None], view.metadata_RC, np.nan),
    )
    np.testing.assert_array_equal(computed(spoilt)[1][own], x_RF[own])


def mirrored(feature):
    """The feature that says of a series upside down what this one says of it, and the sign that is left."""
    if feature.kind in ("value", "difference"):
        return replace(feature, width=-feature.width), 1
    sign = -1 if (feature.kind, feature.statistic) == ("slices", "relative") else 1
    return replace(feature, statistic=SIDES.get(feature.statistic, feature.statistic)), sign


@settings(max_examples=40, deadline=None)
@given(views())
def test_upside_down_below_and_above_change_places_and_the_rest_stays_to_the_last_bit(view):
    features, x_RF = computed(view)
    turned = SeriesView(
        view.image_ids[::-1],
        view.patient_R[::-1],
        view.series_R[-1] - view.series_R[::-1],
        -view.z_mm_R[::-1],
        view.p_MRL[:, ::-1],
        view.metadata_RC[::-1],
    )
    _, turned_RF = computed(turned)
    for column, feature in enumerate(features):
        twin, sign = mirrored(feature)
        there = turned_RF[::-1, features.index(twin)]
        np.testing.assert_array_equal(sign * there, x_RF[:, column], err_msg=feature.name)


@pytest.mark.parametrize("n_members", [1, 2, 5])
def test_no_feature_is_a_copy_of_another_not_even_a_stretched_or_moved_one(n_members):
    """A public solution of 2019 shipped a rolling minimum that was the rolling mean."""
    view = view_of_lengths([30, 41, 23, 1, 2, 36], n_members)
    recipe = replace(EVERYTHING, neighbours=30)
    features, x_RF = computed(replace(view, z_mm_R=np.nan_to_num(view.z_mm_R, nan=3.0)), recipe)
    with np.errstate(invalid="raise"):
        scaled = (x_RF - np.nanmean(x_RF, axis=0)) / np.nanstd(x_RF, axis=0)
    is_empty, known = np.isnan(scaled), np.nan_to_num(scaled)
    for one in range(len(features)):
        same_holes = (is_empty[:, :one] == is_empty[:, [one]]).all(axis=0)
        for sign in (1, -1):
            same_values = np.abs(known[:, :one] - sign * known[:, [one]]).max(axis=0, initial=0.0) <= 1e-4
            copied = [features[other].name for other in np.flatnonzero(same_holes & same_values)]
            assert not copied, f"{features[one].name} is {copied}"


@pytest.mark.parametrize("n_members", [1, 2, 12])
@pytest.mark.parametrize("label", range(N_LABELS))
def test_names_are_unique_and_all_that_is_declared_is_generated(label, n_members):
    features = features_of(replace(EVERYTHING, neighbours=30), n_members, label)
    assert len({feature.name for feature in features}) == len(features)
    of_one_member = {feature for feature in DECLARED if n_members > 1 or feature.source not in ("member", "spread")}
    assert {replace(feature, label=None, member=None) for feature in features} == of_one_member
    assert {feature.kind for feature in DECLARED} == set(KINDS)
