import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ichtune.ensemble.scores import all_scores as scores
from ichtune.ensemble.scores.all_scores import scores_of
from ichtune.errors import ConflictError, DataError
from ichtune.labels import LABELS, METRIC_WEIGHTS
from ichtune.metrics import per_label_log_loss, prior_predictions, weighted_log_loss


@pytest.fixture
def scored(generated):
    p, y, patient = generated(n_patients=40, n_slices=8)
    series = np.char.add(patient, np.where(np.arange(len(patient)) % 8 < 4, ".0", ".1"))
    return y, p[0], patient, series


def test_it_is_plain_json_with_every_score_inside_its_interval(scored):
    found = json.loads(json.dumps(scores_of(*scored, n_draws=200), allow_nan=False))
    assert found["interval"] == {"level": 0.95, "draws": 200, "unit": "patient"}
    assert (found["slices"]["n"], found["series"]["n"], found["n_patients"]) == (320, 80, 40)
    for part in (found["slices"], found["series"]):
        assert list(part["labels"]) == list(LABELS)
        for values in (*part["labels"].values(), part["pooled"]):
            for name, value in values.items():
                if isinstance(value, dict):
                    assert value["low"] <= value["estimate"] <= value["high"], name
    assert "log_loss" not in found["series"]["pooled"]
    assert "calibration_error" not in found["series"]["labels"]["any"]


def test_slices_score_as_scikit_learn_and_the_metric_score_them(scored):
    y, p, *_ = scored
    found = scores_of(*scored, n_draws=50)["slices"]
    by_label = per_label_log_loss(y, p)
    for column, label in enumerate(LABELS):
        values = found["labels"][label]
        assert values["auc"]["estimate"] == pytest.approx(roc_auc_score(y[:, column], p[:, column]), abs=1e-12)
        precision = average_precision_score(y[:, column], p[:, column])
        assert values["average_precision"]["estimate"] == pytest.approx(precision, abs=1e-12)
        assert values["log_loss"]["estimate"] == pytest.approx(by_label[label], rel=1e-12)
        assert values["n_positive"] == y[:, column].sum()
    assert found["pooled"]["log_loss"]["estimate"] == pytest.approx(weighted_log_loss(y, p), rel=1e-12)
    areas = [found["labels"][label]["auc"]["estimate"] for label in LABELS]
    assert found["pooled"]["auc"]["estimate"] == pytest.approx(np.average(areas, weights=METRIC_WEIGHTS), rel=1e-12)


def test_series_score_by_their_likeliest_slice(scored):
    y, p, _, series = scored
    names = np.unique(series)
    y_S = np.array([y[series == name, 0].max() for name in names])
    p_S = np.array([p[series == name, 0].max() for name in names])
    found = scores_of(*scored, n_draws=50)["series"]["labels"]["any"]
    assert found["auc"]["estimate"] == pytest.approx(roc_auc_score(y_S, p_S), abs=1e-12)


def test_the_prior_ranks_nothing_and_is_calibrated(scored):
    y, _, patient, series = scored
    pooled = scores_of(y, prior_predictions(y, len(y)), patient, series, n_draws=100)["slices"]["pooled"]
    assert pooled["auc"]["estimate"] == pytest.approx(0.5, abs=1e-12)
    assert pooled["sensitivity_at_specificity_0.9"]["estimate"] == 0
    assert pooled["calibration_error"]["estimate"] == pytest.approx(0, abs=1e-12)


@pytest.mark.filterwarnings("error")
def test_a_label_without_positives_has_a_reason_in_place_of_scores(scored):
    y, p, patient, series = scored
    y[:, 1] = 0.0
    found = json.loads(json.dumps(scores_of(y, p, patient, series, n_draws=50), allow_nan=False))
    epidural = found["slices"]["labels"]["epidural"]
    assert epidural["auc"] == {"estimate": None, "low": None, "high": None, "reason": "no positive"}
    assert epidural["log_loss"]["estimate"] > 0
    pooled = found["slices"]["pooled"]["auc"]
    assert pooled["reason"] == "without epidural (no positive)"
    kept = [(weight, label) for weight, label in zip(METRIC_WEIGHTS, LABELS, strict=True) if label != "epidural"]
    areas = [found["slices"]["labels"][label]["auc"]["estimate"] for _, label in kept]
    assert pooled["estimate"] == pytest.approx(np.average(areas, weights=[weight for weight, _ in kept]))
    nothing = scores_of(np.zeros_like(y), p, patient, series, n_draws=50)["slices"]["pooled"]["auc"]
    assert nothing["reason"] == "no label has both a positive and a negative"


def test_draws_without_a_positive_are_left_out_and_counted(scored):
    y, p, patient, series = scored
    y[:, 1] = patient == "P0003"
    value = scores_of(y, p, patient, series, n_draws=400)["slices"]["labels"]["epidural"]["auc"]
    n_lost = int(value["reason"].split()[2])
    assert 0.3 < n_lost / 400 < 0.45, "one patient is left out of a draw with a chance of 1 / e"
    assert value["low"] <= value["high"]


def test_order_of_rows_does_not_matter(scored):
    order = np.random.default_rng(0).permutation(len(scored[0]))
    one, two = scores_of(*scored, n_draws=50), scores_of(*(part[order] for part in scored), n_draws=50)

    def numbers(found):
        return [value for part in ("slices", "series") for value in _leaves(found[part])]

    np.testing.assert_allclose(numbers(one), numbers(two), atol=1e-9)


def _leaves(values):
    for value in values.values():
        if isinstance(value, dict):
            yield from _leaves(value)
        elif isinstance(value, int | float):
            yield value


def test_many_positives_are_joined_in_the_draws_only_and_move_the_interval_little(generated, monkeypatch):
    p, y, patient = generated(n_patients=150, n_slices=20, centre=-1.0)
    exact = scores_of(y, p[0], patient, patient, n_draws=60)["slices"]["labels"]["any"]
    monkeypatch.setattr(scores, "MAX_PLACES", 100)
    joined = scores_of(y, p[0], patient, patient, n_draws=60)["slices"]["labels"]["any"]
    assert joined["auc"] != exact["auc"]
    for name, within in (("auc", 1e-3), ("average_precision", 1e-3), ("sensitivity_at_specificity_0.9", 1e-2)):
        assert joined[name]["estimate"] == exact[name]["estimate"]
        for end in ("low", "high"):
            assert joined[name][end] == pytest.approx(exact[name][end], abs=within)


def test_rows_that_do_not_match_are_refused(scored):
    y, p, patient, series = scored
    with pytest.raises(DataError, match="a row for each slice"):
        scores_of(y, p[:-1], patient, series)
    with pytest.raises(DataError, match="labels of 0 or 1"):
        scores_of(y * 0.5, p, patient, series)
    with pytest.raises(DataError, match=r"probabilities in \[0, 1\]"):
        scores_of(y, p * 2, patient, series)
    with pytest.raises(ConflictError, match="must belong to one patient"):
        scores_of(y, p, patient, np.full(len(series), "one"))
