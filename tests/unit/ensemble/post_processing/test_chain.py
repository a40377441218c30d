import json

import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.ensemble.crossfit import Unseen, crossfit
from ichtune.ensemble.post_processing.chain import MIN_PATIENTS, Chain, Link, fit_chain, restore_chain
from ichtune.ensemble.post_processing.clip import Clip
from ichtune.ensemble.post_processing.prior_shift import PriorShift
from ichtune.ensemble.post_processing.steps import DEFAULT_STEPS, STEPS
from ichtune.errors import DataError
from ichtune.labels import ANY, LABELS
from ichtune.metrics import label_losses, prior_predictions, weighted_log_loss


def applied(chain, step=None):
    return [gain.label for gain in chain.gains if gain.applied and step in (None, gain.step)]


def test_well_calibrated_predictions_are_left_alone(calibrated, unseen):
    """On four data sets hardly any of 108 trials passes by chance, and it costs next to nothing on new patients."""
    n_applied, costs = 0, []
    for seed in range(4):
        z, y, patient = calibrated(400, 8, seed)
        chain = fit_chain(DEFAULT_STEPS, unseen(from_logits(z), patient), y, patient)
        z_new, y_new, _ = calibrated(400, 8, 100 + seed)
        n_applied += len(applied(chain))
        p_new = from_logits(z_new)
        costs.append(weighted_log_loss(y_new, chain.predict(p_new)) / weighted_log_loss(y_new, p_new) - 1)
    assert n_applied <= 2
    assert np.mean(costs) < 5e-4


@pytest.mark.parametrize("stretch", [0.6, 1.7])
def test_predictions_that_are_too_sure_or_not_sure_enough_are_put_right(calibrated, unseen, stretch):
    z, y, patient = calibrated()
    chain = fit_chain(DEFAULT_STEPS, unseen(from_logits(stretch * z), patient), y, patient)
    assert set(applied(chain, "temperature")) == set(LABELS)
    z_new, y_new, _ = calibrated(seed=1)
    spoilt, best = (weighted_log_loss(y_new, from_logits(f * z_new)) for f in (stretch, 1.0))
    put_right = weighted_log_loss(y_new, chain.predict(from_logits(stretch * z_new)))
    assert spoilt - put_right > 0.9 * (spoilt - best)


def test_only_the_label_that_is_wrong_is_changed(calibrated, unseen):
    z, y, patient = calibrated(300)
    z[:, 3] = (z[:, 3] - 1.5) / 0.5
    p = from_logits(z)
    chain = fit_chain(["platt"], unseen(p, patient), y, patient)
    assert applied(chain) == [LABELS[3]]
    others = [c for c in range(len(LABELS)) if c != 3]
    np.testing.assert_array_equal(chain.predict(p)[:, others], p[:, others])
    assert np.abs(chain.predict(p)[:, 3] - p[:, 3]).mean() > 0.05


def test_any_is_held_to_its_parts_only_where_that_helps(calibrated, unseen):
    z, y, patient = calibrated(300, centre=-3.0)
    y[:, 0] = y[:, 1:].max(axis=1)
    p = from_logits(z)
    p[:, 0] = y[:, 0].mean()
    chain = fit_chain(["any_noisy_or", "any_at_least_max", "any_at_most_sum"], unseen(p, patient), y, patient)
    assert applied(chain, "any_noisy_or") == [ANY]
    assert {gain.label for gain in chain.gains} == {ANY}
    np.testing.assert_array_equal(chain.predict(p)[:, 1:], p[:, 1:])


def test_gains_are_those_of_patients_that_a_step_had_not_seen(calibrated, unseen):
    z, y, patient = calibrated(40)
    p = from_logits(z)
    chain = fit_chain(["isotonic"], unseen(p, patient), y, patient)

    def fit_predict(fit_rows, predict_rows):
        return STEPS["isotonic"]().fit(p[fit_rows], y[fit_rows]).predict(p[predict_rows])

    by_hand = label_losses(y, p) - label_losses(y, crossfit(fit_predict, patient % 5, len(LABELS)))
    assert [gain.gain for gain in chain.gains] == pytest.approx(by_hand.mean(axis=0).tolist(), abs=1e-15)
    in_sample = label_losses(y, p) - label_losses(y, STEPS["isotonic"]().fit(p, y).predict(p))
    assert in_sample.mean() > 0 > by_hand.mean(), "a fancy curve flatters itself in sample"


def test_a_step_must_gain_more_than_the_tolerance(calibrated, unseen):
    z, y, patient = calibrated(60)
    rows = unseen(from_logits(1.4 * z), patient)
    loose, strict = (fit_chain(["temperature"], rows, y, patient, tolerance) for tolerance in (0.0, 1e3))
    assert applied(loose)
    assert strict.links == ()
    assert [(g.gain, g.standard_error) for g in loose.gains] == [(g.gain, g.standard_error) for g in strict.gains]


def test_a_label_that_few_patients_have_is_left_alone(calibrated, unseen):
    """Zero positives: whatever lowers the label seems to gain for sure."""
    z, y, patient = calibrated(100)
    few = patient >= MIN_PATIENTS - 1
    y[few, 2] = 0.0
    y[:, 4] = ~np.isin(patient, (0, 1))
    chain = fit_chain(["temperature", "platt"], unseen(from_logits(z), patient), y, patient)
    of_label = {gain.label: gain for gain in chain.gains}
    assert (of_label[LABELS[2]].is_judged, of_label[LABELS[4]].n_patients) == (False, 2)
    assert of_label[LABELS[2]].gain > of_label[LABELS[2]].standard_error
    assert not {LABELS[2], LABELS[4]} & set(applied(chain))


def test_folds_whose_rates_differ_teach_nothing():
    """Cross-fitted rates are low where the held-out rate is high: a trap for whatever learns from them."""
    n_applied, changes = 0, []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(150), 6)
        y = (rng.random((150, 6))[patient] < 0.3) * (rng.random((900, 6)) < 0.7) * 1.0
        fold = patient % 5
        p = crossfit(lambda fit, predict, y=y: prior_predictions(y[fit], len(predict)), fold, 6)
        chain = fit_chain(DEFAULT_STEPS, Unseen(np.arange(900), fold, p), y, patient)
        n_applied += len(applied(chain))
        prior = np.full((1, 6), 0.21)
        changes.append(chain.predict(prior) - prior)
    assert n_applied == 0
    assert np.abs(changes).max() < 0.05


def test_shuffled_labels_are_never_predicted_better_than_by_their_rates(calibrated, unseen):
    z, y, patient = calibrated()
    shuffled = y[np.random.default_rng(1).permutation(len(y))]
    p = from_logits(z)

    def fit_predict(fit_rows, predict_rows):
        rows = unseen(p[fit_rows], patient[fit_rows])
        return fit_chain(DEFAULT_STEPS, rows, shuffled[fit_rows], patient[fit_rows]).predict(p[predict_rows])

    loss = weighted_log_loss(shuffled, crossfit(fit_predict, patient // 5 % 4, 6))
    prior = weighted_log_loss(shuffled, prior_predictions(shuffled, len(y)))
    assert prior < loss < 1.02 * prior, "it falls back to the rates, and no lower"


def test_rows_that_were_left_out_of_the_choice_do_not_count(calibrated, unseen):
    z, y, patient = calibrated(60)
    p = from_logits(1.5 * z)
    rows = np.flatnonzero(patient < 40)
    spoilt = y.copy()
    spoilt[patient >= 40] = 1.0 - spoilt[patient >= 40]
    chains = [fit_chain(["platt"], Unseen(rows, patient[rows] % 5, p[rows]), each, patient) for each in (y, spoilt)]
    assert chains[0].gains == chains[1].gains
    np.testing.assert_array_equal(chains[0].predict(p), chains[1].predict(p))


def test_order_of_rows_does_not_matter(calibrated, unseen):
    z, y, patient = calibrated(60)
    p = from_logits(1.4 * z)
    order = np.random.default_rng(2).permutation(len(y))
    straight = fit_chain(DEFAULT_STEPS, unseen(p, patient), y, patient)
    shuffled = fit_chain(DEFAULT_STEPS, unseen(p[order], patient[order]), y[order], patient[order])
    assert applied(straight) == applied(shuffled)
    np.testing.assert_allclose(straight.predict(p), shuffled.predict(p), atol=1e-9)


def test_what_adapts_to_a_set_is_left_out_of_single_predictions(calibrated):
    z, y, _ = calibrated(50)
    p = from_logits(z)
    shift = Link(PriorShift().fit(p, y), LABELS)
    clip = Link(Clip().restore({"bound": [0.01] * 6}), (ANY,))
    chain, test = Chain((clip, shift)), from_logits(z + 1.0)
    np.testing.assert_array_equal(chain.predict(test), clip.predict(test))
    np.testing.assert_array_equal(chain.predict_set(test), shift.predict(clip.predict(test)))
    assert np.abs(chain.predict_set(test) - chain.predict(test)).max() > 0.01


def test_each_held_out_fold_is_a_test_set_to_what_adapts(calibrated):
    """Two sites, each predicted by a blender of the other; one lacks four in five of the slices without the label."""
    z, y, patient = calibrated(3000, 1)
    z, y = np.tile(z[:, :1], 6), np.tile(y[:, :1], 6)
    rows = (patient % 2 == 0) | (y[:, 0] > 0) | (np.random.default_rng(0).random(len(y)) < 0.2)
    z, y, patient = z[rows], y[rows], patient[rows]
    of_other_site = from_logits(z + np.log(5.0) * (patient % 2 == 0)[:, None])
    chain = fit_chain(["prior_shift"], Unseen(np.arange(len(y)), patient % 2, of_other_site), y, patient)
    assert applied(chain) == list(LABELS)


def test_patients_who_differ_are_no_shift(calibrated, unseen):
    """Folds of forty patients whose slices go together: adapting to such a fold makes it worse."""
    z, y, patient = calibrated()
    assert applied(fit_chain(["prior_shift"], unseen(from_logits(z), patient), y, patient)) == []


def test_a_chain_goes_through_json_and_predicts_the_same_bits(calibrated):
    z, y, _ = calibrated()
    p = from_logits(1.6 * z + 0.3)
    chain = Chain(tuple(Link(step().fit(p, y), LABELS[: 1 + len(step.changes) // 3]) for step in STEPS.values()))
    restored = restore_chain(json.loads(json.dumps(chain.learned(), allow_nan=False)))
    assert [link.labels for link in restored.links] == [link.labels for link in chain.links]
    np.testing.assert_array_equal(restored.predict(p), chain.predict(p))
    np.testing.assert_array_equal(restored.predict_set(p), chain.predict_set(p))


@pytest.mark.parametrize(
    ("learned", "message"),
    [
        ({}, "must be a list of steps"),
        ("none", "must be a list of steps"),
        ([{"step": "platt"}], "must name its step, labels and learned"),
        ([3], "must name its step"),
        ([{"step": "plat", "labels": [ANY], "learned": {}}], "Did you mean 'platt'"),
        ([{"step": "clip", "labels": [], "learned": {"bound": [0.1] * 6}}], "can change"),
        ([{"step": "any_at_least_max", "labels": ["subdural"], "learned": {}}], "can change"),
        ([{"step": "clip", "labels": [ANY], "learned": {}}], "must hold bound"),
    ],
)
def test_what_is_no_chain_is_refused(learned, message):
    with pytest.raises(DataError, match=message):
        restore_chain(learned)
