"""The metric against scikit-learn, and what it refuses."""

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import log_loss

from ichtune import metrics
from ichtune.errors import DataError
from ichtune.labels import LABELS, METRIC_WEIGHTS, N_LABELS
from ichtune.metrics import (
    CLIP,
    check_probabilities,
    label_losses,
    per_label_log_loss,
    prior_predictions,
    slice_losses,
    weighted_log_loss,
)

COMBINATIONS_NL = np.array(list(product([0, 1], repeat=N_LABELS)), dtype=np.float32)


def random_probabilities(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.001, 0.999, (n, N_LABELS))


def test_every_label_combination_scores_as_scikit_learn_says() -> None:
    p_NL = random_probabilities(len(COMBINATIONS_NL))
    weights = np.array(METRIC_WEIGHTS)
    for y_L, p_L in zip(COMBINATIONS_NL, p_NL, strict=True):
        expected = log_loss(y_L, p_L, sample_weight=weights, labels=[0, 1])
        assert weighted_log_loss(y_L[None], p_L[None]) == pytest.approx(expected, rel=1e-12)


def test_each_label_scores_as_scikit_learn_says() -> None:
    p_NL = random_probabilities(len(COMBINATIONS_NL))
    got = per_label_log_loss(COMBINATIONS_NL, p_NL)
    assert tuple(got) == LABELS
    for label, value in got.items():
        column = LABELS.index(label)
        assert value == pytest.approx(log_loss(COMBINATIONS_NL[:, column], p_NL[:, column]), rel=1e-12)


def test_the_metric_is_the_mean_over_slices_and_the_weighted_mean_over_labels() -> None:
    y_NL, p_NL = COMBINATIONS_NL, random_probabilities(len(COMBINATIONS_NL))
    losses_NL = label_losses(y_NL, p_NL)
    by_hand = (2 * losses_NL[:, 0] + losses_NL[:, 1:].sum(axis=1)) / 7
    np.testing.assert_allclose(slice_losses(y_NL, p_NL), by_hand, rtol=1e-12)
    assert weighted_log_loss(y_NL, p_NL) == pytest.approx(by_hand.mean(), rel=1e-12)


def test_soft_labels_are_scored_by_the_definition() -> None:
    rng = np.random.default_rng(3)
    p_NL, soft_NL = random_probabilities(20), rng.random((20, N_LABELS))
    expected = -(soft_NL * np.log(p_NL) + (1 - soft_NL) * np.log(1 - p_NL))
    np.testing.assert_allclose(label_losses(soft_NL, p_NL), expected, rtol=1e-12)


def test_one_soft_label_among_hard_ones_is_enough() -> None:
    y_NL, p_NL = COMBINATIONS_NL.copy(), random_probabilities(len(COMBINATIONS_NL))
    y_NL[5, 2] = 0.5
    assert label_losses(y_NL, p_NL)[5, 2] == pytest.approx(-0.5 * np.log(p_NL[5, 2] * (1 - p_NL[5, 2])), rel=1e-12)


def test_blocks_of_slices_do_not_change_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    y_NL, p_NL = COMBINATIONS_NL, random_probabilities(len(COMBINATIONS_NL))
    whole = label_losses(y_NL, p_NL), slice_losses(y_NL, p_NL), weighted_log_loss(y_NL, p_NL)
    by_label = per_label_log_loss(y_NL, p_NL)
    monkeypatch.setattr(metrics, "BLOCK", 7)
    np.testing.assert_array_equal(label_losses(y_NL, p_NL), whole[0])
    np.testing.assert_allclose(slice_losses(y_NL, p_NL), whole[1], rtol=1e-14)
    assert weighted_log_loss(y_NL, p_NL) == pytest.approx(whole[2], rel=1e-14)
    assert per_label_log_loss(y_NL, p_NL) == pytest.approx(by_label, rel=1e-14)


@pytest.mark.parametrize("kind", [np.bool_, np.int8, np.uint8, np.int64, np.float32])
def test_labels_may_be_of_any_type(kind: type) -> None:
    p_NL = random_probabilities(len(COMBINATIONS_NL))
    expected = weighted_log_loss(COMBINATIONS_NL.astype(np.float64), p_NL)
    assert weighted_log_loss(COMBINATIONS_NL.astype(kind), p_NL) == pytest.approx(expected, rel=1e-14)


def test_certainty_costs_no_more_than_the_clip() -> None:
    wrong = weighted_log_loss(np.ones((1, 6)), np.zeros((1, 6)))
    assert wrong == pytest.approx(-np.log(CLIP))
    assert 0 < weighted_log_loss(np.ones((1, 6)), np.ones((1, 6))) < 2e-6


def test_single_precision_probabilities_are_scored_in_double() -> None:
    one = np.ones((1, 6), dtype=np.float32)
    assert np.isfinite(slice_losses(1 - one, one)).all()


@pytest.mark.parametrize("hole", ["labels", "probabilities"])
def test_a_hole_is_refused_not_scored(hole: str) -> None:
    y_NL, p_NL = COMBINATIONS_NL.copy(), random_probabilities(len(COMBINATIONS_NL))
    (y_NL if hole == "labels" else p_NL)[3, 2] = np.nan
    with pytest.raises(DataError, match=r"got NaN"):
        weighted_log_loss(y_NL, p_NL)


def test_no_slices_have_no_loss() -> None:
    none = np.empty((0, 6))
    for score in (weighted_log_loss, per_label_log_loss):
        with pytest.raises(DataError, match=r"no slices is undefined"):
            score(none, none)
    with pytest.raises(DataError, match=r"no slices is undefined"):
        prior_predictions(none, 3)


def test_shapes_must_agree() -> None:
    with pytest.raises(DataError, match=r"got \(2, 6\) and \(3, 6\)"):
        label_losses(np.zeros((2, 6)), np.zeros((3, 6)))


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("value", [-0.01, -1e-7, 1.001, 1.5, np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_no_probability_is_named_with_its_place(value: float, kind: type) -> None:
    p_NL = random_probabilities(4).astype(kind)
    p_NL[2, 5] = value
    with pytest.raises(DataError, match=r"run r1 must be probabilities.*row 2, label 'subdural' \(1 such values\)"):
        check_probabilities(p_NL, "run r1")


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_hard_ones_noughts_and_the_least_of_numbers_are_probabilities(kind: type) -> None:
    p_NL = np.array([[0.0, -0.0, 1.0, 0.5, np.finfo(kind).tiny, np.nextafter(kind(1), kind(0))]], dtype=kind)
    for given in (p_NL, np.asfortranarray(p_NL.repeat(3, 0)), p_NL.repeat(3, 0)[::2], p_NL[:0]):
        check_probabilities(given)


def test_probabilities_have_a_column_for_each_label() -> None:
    check_probabilities(random_probabilities(4))
    with pytest.raises(DataError, match=r"must have shape \(N, 6\), got \(4, 5\)"):
        check_probabilities(random_probabilities(4)[:, :5])


def test_the_prior_is_the_label_rate_and_beats_every_other_constant() -> None:
    y_NL = (np.random.default_rng(1).random((500, 6)) < 0.1).astype(np.float32)
    prior = prior_predictions(y_NL, 500)
    np.testing.assert_allclose(prior[0], y_NL.mean(axis=0, dtype=np.float64))
    best = weighted_log_loss(y_NL, prior)
    assert best < weighted_log_loss(y_NL, prior * 1.1)
    assert best < weighted_log_loss(y_NL, prior * 0.9)


def test_the_prior_of_a_label_that_never_occurs_stays_inside_the_clip() -> None:
    assert (prior_predictions(np.zeros((10, 6)), 2) == CLIP).all()
