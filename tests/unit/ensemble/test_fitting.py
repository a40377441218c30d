import json
from dataclasses import replace

import numpy as np
import pytest

from ichtune.ensemble import fitting
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.blenders.table import BLENDERS
from ichtune.ensemble.crossfit import crossfit
from ichtune.ensemble.fitting import crossfit_blend, crossfit_stages, fit_blend, restore_blend
from ichtune.ensemble.post_processing.any_at_least_max import AnyAtLeastMax
from ichtune.ensemble.post_processing.chain import Chain, Link
from ichtune.ensemble.post_processing.prior_shift import PriorShift
from ichtune.ensemble.post_processing.steps import DEFAULT_STEPS
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import DataError
from ichtune.labels import ANY, LABELS, N_LABELS
from ichtune.metrics import prior_predictions, weighted_log_loss

FOLD = np.repeat(np.arange(4), 100)
PATIENT = np.arange(400) // 4
#: Every blender before every step, one that adapts to the set it predicts among them.
LEARNS = {name: BlendSpec(blender=name, post_processing=(*DEFAULT_STEPS, "prior_shift")) for name in BLENDERS}
LEARNS["auto"] = replace(LEARNS["auto"], parameters={"folds": 2})
LEARNS["top"] = BlendSpec(members={"top": 1}, blender="convex")
LEARNS["overfitting"] = BlendSpec(blender="logistic_stacking", parameters={"l2": 1e-7}, post_processing="none")


def truth(rng, n_rows=400):
    z = -2 + 1.7 * rng.standard_normal((n_rows, N_LABELS))
    return z, (rng.random(z.shape) < from_logits(z)).astype(float)


def members(noises=(3.0, 0.5, 2.0, 1.0), seed=0):
    rng = np.random.default_rng(seed)
    z, y = truth(rng)
    return np.stack([from_logits(z + noise * rng.standard_normal(z.shape)) for noise in noises]), y


def test_top_members_are_chosen_by_loss_and_the_others_weigh_nothing():
    p, y = members()
    fitted = fit_blend(BlendSpec(blender="convex", members={"top": 2}), p, y, PATIENT)
    assert fitted.chosen.tolist() == [1, 3]
    weights = fitted.weights(4)
    assert weights[[0, 2]].max() == 0
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    alone = fit_blend(BlendSpec(blender="convex"), p[[1, 3]], y, PATIENT)
    np.testing.assert_allclose(fitted.predict(p), alone.predict(p[[1, 3]]), rtol=1e-12)


def test_more_than_there_are_means_all():
    p, y = members()
    assert fit_blend(BlendSpec(blender="convex", members={"top": 9}), p, y, PATIENT).chosen.tolist() == [0, 1, 2, 3]


def test_predictions_are_clipped_last_and_steps_are_applied_before():
    p, y = members()
    fitted = fit_blend(BlendSpec(blender="equal_mean", clip=0.05, post_processing="none"), p, y, PATIENT)
    assert fitted.predict(p).min() == 0.05
    np.testing.assert_array_equal(fitted.predict(p), fitted.blend(p))
    raised = replace(fitted, chain=Chain((Link(AnyAtLeastMax(), (ANY,)),))).predict(p)
    assert (raised[:, 0] >= raised[:, 1:].max(axis=1)).all()
    assert raised.min() == 0.05


def squeezed(noises=(0.5, 0.9), seed=0):
    """Members that are not half as sure as they should be."""
    p, y = members(noises, seed)
    return from_logits(0.4 * to_logits(p)), y


def test_members_that_are_not_sure_enough_are_put_right_on_patients_that_nothing_was_fitted_on():
    p, y = squeezed()
    alone, whole = crossfit_stages(BlendSpec(blender="convex"), p, y, FOLD, PATIENT)
    np.testing.assert_array_equal(
        alone, crossfit_blend(BlendSpec(blender="convex", post_processing="none"), p, y, FOLD, PATIENT)
    )
    assert weighted_log_loss(y, whole) < 0.9 * weighted_log_loss(y, alone)
    gains = fit_blend(BlendSpec(blender="convex"), p, y, PATIENT).chain.gains
    assert {gain.label for gain in gains if gain.applied and gain.step == "temperature"} == set(LABELS)


@pytest.mark.parametrize("blender", ["convex", "auto"])
def test_steps_learn_from_patients_that_the_blender_had_not_seen(blender, monkeypatch):
    """Each of them is predicted by a blender that was fitted without its fold."""
    p, y = squeezed()
    seen = []
    monkeypatch.setattr(fitting, "fit_chain", lambda names, unseen, *_: seen.append(unseen) or Chain())
    fitted = fit_blend(BlendSpec(blender=blender), p, y, PATIENT)
    (unseen,) = seen
    assert unseen.row_R.tolist() == list(range(400))
    assert all(len(set(unseen.fold_R[patient == PATIENT])) == 1 for patient in np.unique(PATIENT))
    if blender == "auto":
        (chosen,) = [tried for tried in fitted.blender.tried_ if tried.chosen]
        spec = BlendSpec(blender=chosen.blender, parameters=chosen.parameters, post_processing="none")
    else:
        spec = BlendSpec(blender="convex", post_processing="none")
    by_hand = crossfit_blend(spec, p, y, unseen.fold_R, PATIENT)
    np.testing.assert_allclose(unseen.p_RL, by_hand, rtol=1e-12)


def test_nothing_is_post_processed_where_nobody_is_unseen():
    p, y = squeezed()
    fitted = fit_blend(BlendSpec(blender="convex"), p, y, np.zeros(400, dtype=int))
    assert fitted.chain == Chain()


@pytest.mark.parametrize("blender", ["convex", "auto"])
def test_a_restored_blend_predicts_the_same_bits_from_its_chosen_members_alone(blender):
    p, y = squeezed((3.0, 0.5, 2.0, 0.9))
    spec = BlendSpec(members={"top": 2}, blender=blender, clip=1e-3)
    fitted = fit_blend(spec, p, y, PATIENT)
    assert fitted.chain.links or blender == "auto"  # which chooses a blender that puts itself right
    kept = json.loads(json.dumps({"spec": spec.to_dict(), "learned": fitted.learned()}))
    restored = restore_blend(BlendSpec(**kept["spec"]), kept["learned"], 2)
    assert fitted.chosen.tolist() == [1, 3]
    np.testing.assert_array_equal(restored.predict(p[[1, 3]]), fitted.predict(p))


def test_what_adapts_to_a_test_set_keeps_out_of_single_predictions():
    p, y = members()
    fitted = fit_blend(BlendSpec(blender="convex", post_processing="none"), p, y, PATIENT)
    shift = Link(PriorShift().fit(fitted.blend(p), y), LABELS)
    fitted = replace(fitted, chain=Chain((shift,)))
    np.testing.assert_array_equal(fitted.predict(p), fitted.blend(p))
    few = p[:, y.max(axis=1) == 0]
    assert np.abs(fitted.predict_set(few) - fitted.predict(few)).max() > 0.01


def test_a_blend_of_another_number_of_members_is_not_restored():
    p, y = members()
    spec = BlendSpec(blender="convex")
    with pytest.raises(DataError, match="weights of 4 members, got 3 members"):
        restore_blend(spec, fit_blend(spec, p, y, PATIENT).learned(), 3)


@pytest.mark.parametrize("learned", [{"weights_": [[1.0] * 6]}, {"blender": [], "post_processing": []}])
def test_what_an_older_version_learned_is_not_guessed(learned):
    with pytest.raises(DataError, match="must hold its blender and post_processing"):
        restore_blend(BlendSpec(blender="convex"), learned, 1)


def test_choosing_the_members_is_part_of_what_is_cross_fitted():
    """Fifty noisy copies of the prior: picking the luckiest looks like a gain in sample and is none."""
    rng = np.random.default_rng(1)
    _, y = truth(rng)
    z_prior = np.log(y.mean(axis=0) / (1 - y.mean(axis=0)))
    p = from_logits(z_prior + 0.3 * rng.standard_normal((50, 400, N_LABELS)))
    spec = BlendSpec(members={"top": 5}, blender="equal_mean_logit")
    in_sample = weighted_log_loss(y, fit_blend(spec, p, y, PATIENT).predict(p))
    crossfitted = weighted_log_loss(y, crossfit_blend(spec, p, y, FOLD, PATIENT))
    assert crossfitted > in_sample + 0.002


@pytest.mark.parametrize("space", ["probability", "logit"])
@pytest.mark.parametrize("sharing", ["shared", "per_label"])
def test_noise_cannot_beat_the_prior_once_it_is_cross_fitted(space, sharing):
    """Mean over eight data sets, since by luck noise does help on one or another."""
    spec = BlendSpec(blender="convex", parameters={"space": space, "weights": sharing}, post_processing="none")
    fold = np.arange(200) % 4
    patient = np.arange(200)
    in_sample, crossfitted = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y = truth(rng, 200)[1]
        z_prior = np.log(y.mean(axis=0) / (1 - y.mean(axis=0)))
        p = from_logits(z_prior + 0.3 * rng.standard_normal((30, 200, N_LABELS)))
        prior = weighted_log_loss(y, prior_predictions(y, len(y)))
        in_sample.append(weighted_log_loss(y, fit_blend(spec, p, y, patient).predict(p)) - prior)
        crossfitted.append(weighted_log_loss(y, crossfit_blend(spec, p, y, fold, patient)) - prior)
    assert max(in_sample) < 0, "the noise fools an in-sample score every time"
    assert np.mean(crossfitted) > 0


def test_noise_is_brought_back_to_the_rates_by_post_processing_and_no_lower():
    above = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y = truth(rng)[1]
        p = from_logits(-2 + rng.standard_normal((5, 400, N_LABELS)))
        prior = weighted_log_loss(y, prior_predictions(y, len(y)))
        alone, whole = crossfit_stages(BlendSpec(blender="convex"), p, y, FOLD, PATIENT)
        above.append([weighted_log_loss(y, p_NL) / prior - 1 for p_NL in (alone, whole)])
    alone, whole = np.mean(above, axis=0)
    assert 0 < whole < 0.5 * alone


@pytest.mark.parametrize("post_processing", ["none", DEFAULT_STEPS])
def test_shuffled_labels_leave_nothing_to_learn(post_processing):
    p, y = members()
    shuffled = y[np.random.default_rng(3).permutation(len(y))]
    spec = BlendSpec(blender="convex", post_processing=post_processing)
    crossfitted = weighted_log_loss(shuffled, crossfit_blend(spec, p, shuffled, FOLD, PATIENT))
    assert crossfitted > weighted_log_loss(shuffled, prior_predictions(shuffled, len(y)))


@pytest.mark.slow  # takes seconds
def test_what_chooses_a_blender_cannot_beat_the_prior_with_noise_either():
    rng = np.random.default_rng(4)
    y = truth(rng)[1]
    p = rng.uniform(0.0, 1.0, (12, 400, N_LABELS))
    prior = weighted_log_loss(y, prior_predictions(y, len(y)))
    crossfitted = crossfit_blend(BlendSpec(blender="auto"), p, y, FOLD, PATIENT)
    assert weighted_log_loss(y, crossfitted) > prior


def patients_of_two_folds(n_patients=40, seed=0, shuffled=False):
    """Members that are not sure enough (M, N, L), labels, folds and patients; ``shuffled`` deals labels to others."""
    rng = np.random.default_rng(seed)
    patient_N = np.repeat(np.arange(n_patients), 2)
    z = 1.5 * rng.standard_normal((n_patients, N_LABELS))[patient_N] + rng.standard_normal((2 * n_patients, N_LABELS))
    y_NL = (rng.random(z.shape) < from_logits(z)).astype(float)
    noises = (0.5, 0.9, 1.3, 1.7, 2.1, 2.5)
    p_MNL = np.stack([from_logits(0.3 * (z + noise * rng.standard_normal(z.shape))) for noise in noises])
    if shuffled:
        y_NL = y_NL.reshape(n_patients, 2, N_LABELS)[rng.permutation(n_patients)].reshape(y_NL.shape)
    return p_MNL, y_NL, patient_N % 2, patient_N


def moved_by_labels_of_fold_0(stages, spec, data):
    """Turn every label of fold 0 round: the folds of which a cross-fitted prediction changes by a bit or more."""
    p_MNL, y_NL, fold_N, patient_N = data
    turned_NL = np.where((fold_N == 0)[:, None], 1.0 - y_NL, y_NL)
    one, other = (np.concatenate(stages(spec, p_MNL, y, fold_N, patient_N), axis=1) for y in (y_NL, turned_NL))
    return {int(fold) for fold in fold_N[(one != other).any(axis=1)]}


@pytest.mark.parametrize("name", LEARNS)
def test_labels_of_a_fold_change_no_bit_of_its_cross_fitted_predictions(name):
    """Members, way, weights and steps are those of the other folds, which do change when these learn otherwise."""
    assert moved_by_labels_of_fold_0(crossfit_stages, LEARNS[name], patients_of_two_folds()) == {1}


def leaky(leak):
    """Return a ``crossfit_stages`` in which ``leak`` gets the honest fit and that on the scored patients too."""

    def stages(spec, p_MNL, y_NL, fold_N, patient_N):
        whole = fit_blend(spec, p_MNL, y_NL, patient_N)

        def fit_predict(fit_rows, predict_rows):
            fit_on = p_MNL[:, fit_rows], y_NL[fit_rows], patient_N[fit_rows]
            fitted = leak(fit_blend(spec, *fit_on), whole, fit_on)
            held_out = p_MNL[:, predict_rows]
            return np.concatenate([fitted.blend(held_out), fitted.predict_set(held_out)], axis=1)

        return np.split(crossfit(fit_predict, fold_N, 2 * N_LABELS), 2, axis=1)

    return stages


def way_of_all(fitted, whole, fit_on):
    (way,) = [tried for tried in whole.blender.tried_ if tried.chosen]
    return fit_blend(replace(fitted.spec, blender=way.blender, parameters=way.parameters), *fit_on)


def members_of_all(fitted, whole, fit_on):
    p_MNL, y_NL, patient_N = fit_on
    alone = fit_blend(replace(fitted.spec, members="all"), p_MNL[whole.chosen], y_NL, patient_N)
    return replace(alone, chosen=whole.chosen)


#: What learns from the scored patients, in which blend.
LEAKS = {
    "everything of convex": (lambda fitted, whole, _: whole, "convex"),
    "everything of stacking": (lambda fitted, whole, _: whole, "overfitting"),
    "the weights": (lambda fitted, whole, _: replace(fitted, blender=whole.blender), "convex"),
    "the steps": (lambda fitted, whole, _: replace(fitted, chain=whole.chain), "convex"),
    "the way": (way_of_all, "auto"),
    "the steps of auto": (lambda fitted, whole, _: replace(fitted, chain=whole.chain), "auto"),
    "the members": (members_of_all, "top"),
}


OF_AUTO = {name for name, (_, spec) in LEAKS.items() if spec == "auto"}


@pytest.mark.parametrize(
    "name", [name if name == "the steps" else pytest.param(name, marks=pytest.mark.slow) for name in LEAKS]
)
def test_a_leak_does_change_them(name):
    leak, spec = LEAKS[name]
    assert 0 in moved_by_labels_of_fold_0(leaky(leak), LEARNS[spec], patients_of_two_folds())


@pytest.mark.slow  # a hundred blends, with the blender that fits all others among them
@pytest.mark.parametrize("name", sorted(LEAKS.keys() - {"the way"}))
def test_where_labels_are_shuffled_a_leak_gains_and_what_does_not_leak_does_not(name):
    """A mean over data sets, which sees no smaller leaks, such as that of the way alone: bits do, above."""
    leak, spec = leaky(LEAKS[name][0]), LEARNS[LEAKS[name][1]]
    gains, behind_prior = [], []
    for seed in range(6 if name in OF_AUTO else 12):
        _, y_NL, fold_N, _ = data = patients_of_two_folds(seed=seed, shuffled=True)
        prior = crossfit(lambda fit, held_out, y=y_NL: prior_predictions(y[fit], len(held_out)), fold_N, N_LABELS)
        honest = weighted_log_loss(y_NL, crossfit_stages(spec, *data)[1])
        gains.append(honest - weighted_log_loss(y_NL, leak(spec, *data)[1]))
        behind_prior.append(honest - weighted_log_loss(y_NL, prior))
    assert np.mean(gains) > 2 * np.std(gains, ddof=1) / np.sqrt(len(gains))
    assert np.mean(behind_prior) > 0
