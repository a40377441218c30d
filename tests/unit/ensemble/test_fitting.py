import json

import numpy as np
import pytest

from ichtune.ensemble.fitting import crossfit_blend, fit_blend, restore_blend
from ichtune.ensemble.logits import from_logits
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import DataError
from ichtune.labels import N_LABELS
from ichtune.metrics import prior_predictions, weighted_log_loss

FOLD = np.repeat(np.arange(4), 100)
PATIENT = np.arange(400) // 4


def truth(rng, n_rows=400):
    z = -2 + 1.7 * rng.standard_normal((n_rows, N_LABELS))
    return z, (rng.random(z.shape) < from_logits(z)).astype(float)


def members(noises=(3.0, 0.5, 2.0, 1.0), seed=0):
    rng = np.random.default_rng(seed)
    z, y = truth(rng)
    return np.stack([from_logits(z + noise * rng.standard_normal(z.shape)) for noise in noises]), y


def test_top_members_are_chosen_by_loss_and_the_others_weigh_nothing():
    p, y = members()
    fitted = fit_blend(BlendSpec(members={"top": 2}), p, y, PATIENT)
    assert fitted.chosen.tolist() == [1, 3]
    weights = fitted.weights(4)
    assert weights[[0, 2]].max() == 0
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    alone = fit_blend(BlendSpec(), p[[1, 3]], y, PATIENT)
    np.testing.assert_allclose(fitted.predict(p), alone.predict(p[[1, 3]]), rtol=1e-12)


def test_more_than_there_are_means_all():
    p, y = members()
    assert fit_blend(BlendSpec(members={"top": 9}), p, y, PATIENT).chosen.tolist() == [0, 1, 2, 3]


def test_clip_and_rule_are_applied_in_prediction():
    p, y = members()
    spec = BlendSpec(blender="equal_mean", clip=0.05, any_rule="at_least_max")
    p_NL = fit_blend(spec, p, y, PATIENT).predict(p)
    assert p_NL.min() == 0.05
    assert (p_NL[:, 0] >= p_NL[:, 1:].max(axis=1)).all()


def test_a_restored_blend_predicts_the_same_bits_from_its_chosen_members_alone():
    p, y = members()
    spec = BlendSpec(members={"top": 2}, parameters={"weights": "per_label"}, clip=1e-3, any_rule="at_least_max")
    fitted = fit_blend(spec, p, y, PATIENT)
    kept = json.loads(json.dumps({"spec": spec.to_dict(), "learned": fitted.blender.learned()}))
    restored = restore_blend(BlendSpec(**kept["spec"]), kept["learned"], 2)
    assert fitted.chosen.tolist() == [1, 3]
    np.testing.assert_array_equal(restored.predict(p[[1, 3]]), fitted.predict(p))


def test_a_blend_of_another_number_of_members_is_not_restored():
    p, y = members()
    spec = BlendSpec()
    with pytest.raises(DataError, match="weights of 4 members, got 3 members"):
        restore_blend(spec, fit_blend(spec, p, y, PATIENT).blender.learned(), 3)


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
    spec, fold = BlendSpec(parameters={"space": space, "weights": sharing}), np.arange(200) % 4
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


def test_shuffled_labels_leave_nothing_to_learn():
    p, y = members()
    shuffled = y[np.random.default_rng(3).permutation(len(y))]
    crossfitted = weighted_log_loss(shuffled, crossfit_blend(BlendSpec(), p, shuffled, FOLD, PATIENT))
    assert crossfitted > weighted_log_loss(shuffled, prior_predictions(shuffled, len(y)))


def test_what_chooses_a_blender_cannot_beat_the_prior_with_noise_either():
    rng = np.random.default_rng(4)
    y = truth(rng)[1]
    p = rng.uniform(0.0, 1.0, (12, 400, N_LABELS))
    prior = weighted_log_loss(y, prior_predictions(y, len(y)))
    crossfitted = crossfit_blend(BlendSpec(blender="auto"), p, y, FOLD, PATIENT)
    assert weighted_log_loss(y, crossfitted) > prior
