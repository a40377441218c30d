import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from ichtune.ensemble.scores import discrimination
from ichtune.ensemble.scores.discrimination import OPERATING_POINTS, RANK_SCORES, on_places, rank_label, rank_scores
from ichtune.errors import DataError


def scored(n=200, seed=0, decimals=2, rate=0.2):
    """Labels, scores with many ties, and the patient of each slice."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < rate).astype(float)
    return y, np.round(1 / (1 + np.exp(-(y * 1.5 + rng.standard_normal(n)))), decimals), rng.integers(0, 30, n)


def by_scikit_learn(y, p, weight):
    """The same scores, one weighing at a time."""
    false_rate, true_rate, _ = roc_curve(y, p, sample_weight=weight, drop_intermediate=False)
    scores = {
        "auc": roc_auc_score(y, p, sample_weight=weight),
        "average_precision": average_precision_score(y, p, sample_weight=weight),
    }
    for point in OPERATING_POINTS:
        is_allowed = false_rate <= 1 - point + 1e-9
        scores[f"sensitivity_at_specificity_{point:g}"] = true_rate[is_allowed].max()
        scores[f"specificity_at_sensitivity_{point:g}"] = 1 - false_rate[true_rate >= point - 1e-9].min()
    return scores


@pytest.mark.parametrize("decimals", [1, 2, 9], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("kind", [np.uint16, np.float64])
def test_each_weighing_scores_as_scikit_learn_scores_it(decimals, kind):
    y, p, patient = scored(decimals=decimals)
    weight = np.random.default_rng(1).integers(0, 4, (30, 7)).astype(kind)
    weight[:, 0] = 1
    if kind is np.float64:
        weight *= np.random.default_rng(2).random(weight.shape)
    got = rank_scores(rank_label(y, p, patient, 30), weight)
    assert set(got) == set(RANK_SCORES)
    for d in range(7):
        for name, value in by_scikit_learn(y, p, weight[patient, d].astype(float)).items():
            assert got[name][d] == pytest.approx(value, abs=1e-12), (name, d)


def test_a_perfect_a_reversed_and_a_constant_ranking():
    y = np.array([0, 0, 0, 1, 1.0])
    once = np.ones((5, 1))

    def scores(p):
        return {name: v[0] for name, v in rank_scores(rank_label(y, np.array(p), np.arange(5), 5), once).items()}

    assert set(scores([0.1, 0.2, 0.3, 0.4, 0.5]).values()) == {1.0}
    assert scores([0.5, 0.4, 0.3, 0.2, 0.1])["auc"] == 0
    constant = scores([0.3] * 5)
    assert constant["auc"] == 0.5
    assert constant["average_precision"] == pytest.approx(0.4)
    assert constant["sensitivity_at_specificity_0.9"] == 0


def test_an_operating_point_that_is_met_exactly_counts():
    """One false alarm among ten negatives is a specificity of 0.9, whatever 1 - 0.9 is in binary."""
    y = np.array([1.0] + [0.0] * 10)
    p = np.array([0.8, 0.9] + [0.1] * 9)
    scores = rank_scores(rank_label(y, p, np.zeros(11, int), 1), np.ones((1, 1)))
    assert scores["sensitivity_at_specificity_0.9"][0] == 1
    assert scores["sensitivity_at_specificity_0.95"][0] == 0


@pytest.mark.filterwarnings("error")
def test_a_weighing_without_positives_or_negatives_has_no_score():
    y, p, group = np.array([1.0, 1.0, 0.0]), np.array([0.9, 0.2, 0.5]), np.array([0, 0, 1])
    weight = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    for values in rank_scores(rank_label(y, p, group, 2), weight).values():
        assert np.isnan(values).tolist() == [False, True, True]
    assert rank_label(np.zeros(3), p, group, 2).missing == "no positive"
    assert rank_label(np.ones(3), p, group, 2).missing == "no negative"
    assert np.isnan(rank_scores(rank_label(np.zeros(3), p, group, 2), weight)["auc"]).all()
    assert rank_label(y, p, group, 2).missing is None


def test_blocks_of_weighings_do_not_change_the_result(monkeypatch):
    y, p, patient = scored()
    weight = np.random.default_rng(1).integers(0, 4, (30, 9)).astype(np.uint16)
    ranked = rank_label(y, p, patient, 30)
    whole = rank_scores(ranked, weight)
    monkeypatch.setattr(discrimination, "LONGEST", 2)
    for name, values in rank_scores(ranked, weight).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-13)


def test_soft_labels_and_missing_scores_are_refused():
    with pytest.raises(DataError, match="labels of 0 or 1"):
        rank_label(np.array([0.5, 1.0]), np.ones(2), np.zeros(2, int), 1)
    with pytest.raises(DataError, match="got NaN"):
        rank_label(np.array([0.0, 1.0]), np.array([np.nan, 0.1]), np.zeros(2, int), 1)


@pytest.mark.parametrize("n_places", [20, 100])
def test_joined_places_move_the_scores_no_further_than_said(n_places):
    y, p, patient = scored(n=6000, decimals=9)
    weight = np.ones((30, 1))
    joined = on_places(y, p, n_places)
    assert (joined <= p).all()
    assert len(np.unique(joined[y == 1])) >= n_places
    exact, near = (rank_scores(rank_label(y, q, patient, 30), weight) for q in (p, joined))
    assert 0 < abs(exact["auc"][0] - near["auc"][0]) <= 0.5 / n_places
    for point in OPERATING_POINTS:
        name = f"sensitivity_at_specificity_{point:g}"
        assert 0 <= exact[name][0] - near[name][0] <= 1 / n_places
