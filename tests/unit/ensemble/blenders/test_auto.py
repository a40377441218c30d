import json

import numpy as np
import pytest

from ichtune.ensemble.blenders import auto
from ichtune.ensemble.blenders.auto import CANDIDATES, Auto, choice_rows, standard_error
from ichtune.ensemble.blenders.table import create_blender
from ichtune.errors import ConfigError, DataError
from ichtune.metrics import prior_predictions, weighted_log_loss

FEW = (("equal_mean_logit", {}), ("convex", {"space": "logit"}), ("logistic_stacking", {"l2": 1e-6}))


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(auto, "CANDIDATES", FEW)


def test_every_candidate_is_a_blender_from_the_simplest_on():
    assert [name for name, _ in CANDIDATES][:2] == ["equal_mean_logit", "equal_mean"]
    for name, parameters in CANDIDATES:
        create_blender(name, parameters)


def test_members_alike_are_averaged_and_a_bad_one_among_them_is_weighed_down(generated, few):
    alike, y, patient = generated(noises=(1.0, 1.0, 1.0, 1.0))
    assert Auto().fit(alike, y, None, patient).chosen_.weights_ == pytest.approx(0.25)
    p, y, patient = generated(noises=(0.3, 4.0, 4.0))
    chosen = Auto().fit(p, y, None, patient)
    assert next(tried.blender for tried in chosen.tried_ if tried.chosen) == "convex"
    assert chosen.weights_[0].min() > 0.9


def test_a_duplicate_changes_nothing(generated, monkeypatch):
    """Whatever is chosen: the equal mean by itself would count it twice."""
    p, y, patient = generated(noises=(0.3, 1.0, 2.0))
    for candidate in CANDIDATES:
        monkeypatch.setattr(auto, "CANDIDATES", (candidate,))
        alone, beside = (Auto().fit(members, y, None, patient) for members in (p, p[[0, 1, 2, 1]]))
        assert beside.predict(p[[0, 1, 2, 1]]) == pytest.approx(alone.predict(p), abs=1e-12), candidate
        if beside.weights_ is not None:
            assert beside.weights_[1] == pytest.approx(beside.weights_[3])
            assert beside.weights_[[1, 3]].sum(axis=0) == pytest.approx(alone.weights_[1], abs=1e-12)
        again = Auto().restore(json.loads(json.dumps(beside.learned())))
        assert (again.predict(p[[0, 1, 2, 1]]) == beside.predict(p[[0, 1, 2, 1]])).all()
    with pytest.raises(DataError, match="fitted on 4 members, got 3"):
        beside.predict(p)


def test_the_losses_of_the_choice_are_kept_for_its_optimism(generated, few):
    p, y, patient = generated(noises=(0.3, 4.0, 4.0))
    fitted = Auto().fit(p, y, None, patient)
    losses_RC, patient_R = fitted.judged_
    assert losses_RC.mean(axis=0) == pytest.approx([tried.loss for tried in fitted.tried_])
    assert set(patient_R) == set(patient)


def test_a_fancier_candidate_must_be_a_standard_error_better(generated, few):
    p, y, patient = generated(noises=(0.3, 4.0, 4.0))
    strict, loose = Auto(tolerance=0.0).fit(p, y, None, patient), Auto(tolerance=10.0).fit(p, y, None, patient)
    best = min(strict.tried_, key=lambda tried: tried.loss)
    assert best.chosen
    assert best.behind == best.standard_error == 0
    for tried, again in zip(strict.tried_, loose.tried_, strict=True):
        assert (tried.loss, tried.standard_error) == (again.loss, again.standard_error)
        assert tried.behind == pytest.approx(tried.loss - best.loss, abs=1e-15)
    within = [tried for tried in loose.tried_ if tried.behind <= 10 * tried.standard_error]
    assert within[0].chosen


def test_losses_are_those_of_patients_that_were_not_fitted_on(generated, few):
    """Members of noise: what learns most gains in sample and loses on others."""
    rng = np.random.default_rng(3)
    _, y, patient = generated(n_patients=30, n_slices=4)
    noise = rng.uniform(0.01, 0.99, (25, *y.shape))
    fitted = Auto().fit(noise, y, None, patient)
    in_sample = weighted_log_loss(y, create_blender("logistic_stacking", {"l2": 1e-6}).fit(noise, y).predict(noise))
    assert in_sample < weighted_log_loss(y, prior_predictions(y, len(y)))
    assert fitted.tried_[2].loss > weighted_log_loss(y, prior_predictions(y, len(y)))


def test_what_the_chosen_one_said_of_unseen_patients_is_kept(generated, few):
    p, y, patient = generated(noises=(0.3, 4.0, 4.0))
    fitted = Auto().fit(p, y, None, patient)
    (chosen,) = [tried for tried in fitted.tried_ if tried.chosen]
    kept = fitted.unseen_
    assert weighted_log_loss(y[kept.row_R], kept.p_RL) == pytest.approx(chosen.loss, abs=1e-12)
    assert "unseen_" not in fitted.learned()


def test_patients_are_dealt_whole_and_the_same_in_any_order_of_rows():
    patient = np.repeat([f"P{i}" for i in range(23)], 7)
    weight = np.ones(len(patient))
    rows, fold = choice_rows(patient, weight, 5, 1000)
    assert rows.tolist() == list(range(len(patient)))
    of_patient = {name: set(fold[patient == name]) for name in np.unique(patient)}
    assert all(len(folds) == 1 for folds in of_patient.values())
    assert set(np.bincount([min(folds) for folds in of_patient.values()])) == {4, 5}
    order = np.random.default_rng(0).permutation(len(patient))
    assert (choice_rows(patient[order], weight, 5, 1000)[1] == fold[order]).all()


def test_a_choice_on_some_rows_takes_whole_patients_and_only_those_with_weight():
    patient = np.repeat([f"P{i}" for i in range(50)], 10)
    weight = np.where(patient == "P7", 0.0, 1.0)
    rows, fold = choice_rows(patient, weight, 5, 95)
    names, counts = np.unique(patient[rows], return_counts=True)
    assert len(names) == 10
    assert set(counts) == {10}
    assert "P7" not in choice_rows(patient, weight, 5, 10**6)[0].astype(str)
    assert len(np.unique(fold)) == 5


def test_the_standard_error_is_that_of_drawn_patients():
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(400), 5)
    difference = np.repeat(rng.standard_normal(400), 5) + 0.1 * rng.standard_normal(2000)
    weight = np.full(2000, 1 / 2000)
    means = difference.reshape(400, 5).mean(axis=1)
    assert standard_error(difference, weight, patient) == pytest.approx(means.std(ddof=1) / 20, rel=1e-9)


def test_nothing_is_chosen_without_patients(generated):
    p, y, patient = generated(n_patients=4, n_slices=3)
    with pytest.raises(DataError, match="give fit the patient of each slice"):
        Auto().fit(p, y)
    with pytest.raises(DataError, match=r"at least two patients, got 1: .* a fold is held out .* `--ensemble mean`"):
        Auto().fit(p, y, None, np.full(len(patient), "P"))
    with pytest.raises(DataError, match="has chosen no blender yet"):
        Auto().predict(p)


def test_settings_and_what_was_learned_are_checked():
    with pytest.raises(ConfigError, match="folds must be a whole number of at least 2, got 1"):
        Auto(folds=1)
    with pytest.raises(ConfigError, match="tolerance must be a number between 0 and 10, got -1"):
        Auto(tolerance=-1)
    with pytest.raises(DataError, match="must name what it chose"):
        Auto().restore({"weights_": None})
    whole = {"weights_": None, "n_members": 1, "distinct": [0]}
    itself = {"blender": "auto", "parameters": {}, "loss": 1, "behind": 0, "standard_error": 0, "chosen": True}
    with pytest.raises(DataError, match="what its choice learned"):
        Auto().restore({**whole, "tried": [itself], "chosen": {}})
