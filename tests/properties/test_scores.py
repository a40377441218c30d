"""Laws of the scores by rank and of calibration, for any labels, probabilities and weights."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, roc_auc_score

from ichtune.ensemble.scores.calibration_error import equal_count_bins
from ichtune.ensemble.scores.discrimination import RANK_SCORES, on_places, rank_label, rank_scores

lawful = settings(derandomize=True, deadline=None, max_examples=60)


@st.composite
def ranked(draw):
    """Labels of both kinds, scores on a coarse or a fine scale, and weights of which one of each kind is not 0."""
    n = draw(st.integers(2, 25))
    y = draw(arrays(np.float64, n, elements=st.sampled_from([0.0, 1.0])))
    y[0], y[1] = 0.0, 1.0
    scores = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0.0, 1.0))
    weight = draw(arrays(np.float64, n, elements=st.integers(0, 5).map(float)))
    weight[:2] += 1.0
    return y, draw(arrays(np.float64, n, elements=scores)), weight


def scores_of_rows(y, p, weight):
    found = rank_scores(rank_label(y, p, np.arange(len(y)), len(y)), weight[:, None])
    return {name: float(values[0]) for name, values in found.items()}


@lawful
@given(ranked())
def test_they_are_scikit_learn_s(case):
    y, p, weight = case
    found = scores_of_rows(y, p, weight)
    assert np.isclose(found["auc"], roc_auc_score(y, p, sample_weight=weight), atol=1e-12)
    assert np.isclose(found["average_precision"], average_precision_score(y, p, sample_weight=weight), atol=1e-12)


@lawful
@given(ranked())
def test_they_lie_between_nought_and_one(case):
    found = scores_of_rows(*case)
    assert set(found) == set(RANK_SCORES)
    assert all(-1e-12 <= value <= 1 + 1e-12 for value in found.values())


@lawful
@given(ranked())
def test_a_weight_of_two_is_the_row_twice(case):
    y, p, weight = case
    times = weight.astype(int)
    whole = scores_of_rows(np.repeat(y, times), np.repeat(p, times), np.ones(times.sum()))
    np.testing.assert_allclose(list(scores_of_rows(y, p, weight).values()), list(whole.values()), atol=1e-12)


@lawful
@given(ranked())
def test_only_the_order_of_scores_matters(case):
    y, p, weight = case
    ranks = np.unique(p, return_inverse=True)[1].astype(float)
    assert scores_of_rows(y, ranks, weight) == scores_of_rows(y, p, weight)


@lawful
@given(ranked())
def test_turned_labels_and_scores_keep_the_area(case):
    y, p, weight = case
    turned = scores_of_rows(1 - y, -p, weight)
    assert np.isclose(scores_of_rows(y, p, weight)["auc"], turned["auc"], atol=1e-12)


@lawful
@given(ranked(), st.integers(1, 10))
def test_joined_places_keep_the_area_to_half_the_pairs_that_they_join(case, n_places):
    y, p, _ = case
    q, once = on_places(y, p, n_places), np.ones(len(y))
    # pairs of a positive and a negative that are apart, and are in one place after joining
    pairs_joined = (q[y == 1][:, None] == q[y == 0]) & (p[y == 1][:, None] != p[y == 0])
    moved = abs(scores_of_rows(y, p, once)["auc"] - scores_of_rows(y, q, once)["auc"])
    assert moved <= 0.5 * pairs_joined.mean() + 1e-12


@lawful
@given(arrays(np.float64, st.integers(1, 200), elements=st.floats(0.0, 1.0)), st.integers(1, 30))
def test_bins_are_in_order_and_no_more_than_asked(p, n_bins):
    bins = equal_count_bins(p, n_bins)
    assert bins.min() >= 0
    assert bins.max() < n_bins
    order = np.argsort(p, kind="stable")
    assert (np.diff(bins[order]) >= 0).all()
    assert all(len(set(bins[p == value])) == 1 for value in p)
