"""Every blender of the table keeps the laws of ``ichtune.ensemble.blenders.base.Blender``, whatever its settings."""

import json
from pathlib import Path

import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.ensemble.blenders.table import BLENDERS, create_blender
from ichtune.ensemble.crossfit import crossfit
from ichtune.errors import DataError
from ichtune.labels import METRIC_WEIGHTS, N_LABELS
from ichtune.metrics import weighted_log_loss

#: Settings beside the defaults; a blender that is not named here is tested with its defaults.
SETTINGS = {
    "convex": [
        {"space": space, "weights": sharing, "shrinkage": shrinkage}
        for space in ("probability", "logit")
        for sharing in ("shared", "per_label")
        for shrinkage in (0.0, 0.2)
    ]
    + [{"weights": "per_label", "towards_shared": 0.5}],
    "greedy": [{"space": "probability", "rounds": 7, "bags": 1}],
    "logit_scaling": [{"shrinkage": 1.0}],
    "logistic_stacking": [{"l2": 1.0}],
    "model_averaging": [{"space": "logit", "tempering": 1.0}],
    "nnls": [{"space": "logit"}],
    "power_mean": [{"exponent": 0.0}, {"exponent": 2.0}],
}
CASES = [
    pytest.param(name, settings, id="-".join([name, *(str(value) for value in settings.values())]))
    for name in BLENDERS
    for settings in [{}, *SETTINGS.get(name, [])]
]
ECG = Path(__file__).resolve().parents[3] / "shared" / "data" / "ensemble_ecg" / "pack.npz"


def generated(n_rows=240, noises=(0.5, 0.9, 1.4), seed=0):
    rng = np.random.default_rng(seed)
    z = -2 + 1.7 * rng.standard_normal((n_rows, N_LABELS))
    y = (rng.random(z.shape) < from_logits(z)).astype(float)
    return np.stack([from_logits(z + noise * rng.standard_normal(z.shape)) for noise in noises]), y


def patients(n_rows):
    """Two slices a patient."""
    return np.array([f"P{row // 2}" for row in range(n_rows)])


def fit(name, settings, p, y, weight=None, patient=None):
    patient = patients(len(y)) if patient is None else patient
    return create_blender(name, settings).fit(p, y, weight, patient)


def fit_predict(name, settings, p, y):
    return fit(name, settings, p, y).predict(p)


def ecg(*, with_readers=False):
    if not ECG.is_file():
        pytest.skip("real test files are not beside this checkout")
    with np.load(ECG) as pack:
        readers = [pack[name] for name in sorted(pack.files) if name.startswith("reader_")]
        p = np.concatenate([pack["preds"], np.stack(readers)]) if with_readers else pack["preds"]
        return p.astype(np.float64), pack["y"].astype(np.float64)


@pytest.mark.parametrize(("name", "settings"), CASES)
class TestLaws:
    def test_predictions_are_probabilities_and_a_mean_s_lie_between_the_members(self, name, settings):
        p, y = generated()
        p_NL = fit_predict(name, settings, p, y)
        assert p_NL.shape == y.shape
        assert p_NL.dtype == np.float64
        assert p_NL.min() >= 0
        assert p_NL.max() <= 1
        if BLENDERS[name].is_mean:
            assert (p_NL >= p.min(axis=0) - 1e-9).all()
            assert (p_NL <= p.max(axis=0) + 1e-9).all()

    def test_weights_are_a_column_of_shares_for_each_label(self, name, settings):
        p, y = generated()
        weights = fit(name, settings, p, y).weights_
        if weights is not None:
            assert weights.shape == (len(p), N_LABELS)
            assert weights.min() >= 0
            np.testing.assert_allclose(weights.sum(axis=0), 1.0, atol=1e-12)

    def test_a_blend_of_fair_members_beats_the_worst_of_them(self, name, settings):
        p, y = generated()
        worst = max(weighted_log_loss(y, p_NL) for p_NL in p)
        assert weighted_log_loss(y, fit_predict(name, settings, p, y)) < worst

    def test_a_mean_of_one_member_is_that_member(self, name, settings):
        if not BLENDERS[name].is_mean:
            pytest.skip("learns a scale of its own")
        p, y = generated()
        np.testing.assert_allclose(fit_predict(name, settings, p[:1], y), p[0], atol=2e-6)

    def test_equal_members_count_as_one(self, name, settings):
        p, y = generated()
        one = fit_predict(name, settings, p[:1], y)
        np.testing.assert_allclose(fit_predict(name, settings, p[[0, 0, 0]], y), one, atol=2e-6)

    @pytest.mark.filterwarnings("error")
    def test_hard_members_and_labels_without_a_positive_stay_finite(self, name, settings):
        p, y = generated()
        y[:, 1] = 0.0
        hard = np.stack([p[0], (p[1] > 0.5).astype(float), 1.0 - y, y, np.zeros_like(y), np.ones_like(y)])
        p_NL = fit_predict(name, settings, hard, y)
        assert np.isfinite(p_NL).all()
        assert p_NL.min() >= 0
        assert p_NL.max() <= 1

    def test_order_of_rows_does_not_matter(self, name, settings):
        p, y = generated()
        order = np.random.default_rng(1).permutation(len(y))
        shuffled = fit(name, settings, p[:, order], y[order], None, patients(len(y))[order])
        np.testing.assert_allclose(shuffled.predict(p), fit_predict(name, settings, p, y), atol=1e-8)

    def test_order_of_members_does_not_matter(self, name, settings):
        p, y = generated()
        turned = fit(name, settings, p[::-1], y).predict(p[::-1])
        np.testing.assert_allclose(turned, fit_predict(name, settings, p, y), atol=1e-8)

    def test_fitting_twice_forgets_the_first_and_leaves_its_input_alone(self, name, settings):
        p, y = generated()
        other_p, other_y = generated(seed=9)
        kept_p, kept_y = p.copy(), y.copy()
        patient = patients(len(y))
        blender = create_blender(name, settings).fit(other_p, other_y, None, patient).fit(p, y, None, patient)
        np.testing.assert_array_equal(blender.predict(p), fit_predict(name, settings, p, y))
        np.testing.assert_array_equal(p, kept_p)
        np.testing.assert_array_equal(y, kept_y)

    def test_the_members_that_it_needs_predict_the_same_bits_alone(self, name, settings):
        p, y = generated()
        p = np.concatenate([p, np.random.default_rng(5).uniform(0.3, 0.7, (2, *y.shape)), p[:1]])  # useless, and a copy
        fitted = fit(name, settings, p, y)
        live = fitted.live()
        members = [*range(len(p))] if live is None else live.tolist()
        if name in ("best_member", "auto"):
            assert len(members) < len(p)
        alone = create_blender(name, settings).restore(json.loads(json.dumps(fitted.learned_of(members))))
        np.testing.assert_array_equal(alone.predict(p[members]), fitted.predict(p))

    def test_what_it_learned_goes_through_json_and_predicts_the_same_bits(self, name, settings):
        p, y = generated()
        fitted = fit(name, settings, p, y)
        kept = json.loads(json.dumps(fitted.learned(), allow_nan=False))
        restored = create_blender(name, settings).restore(kept)
        np.testing.assert_array_equal(restored.predict(p), fitted.predict(p))
        assert restored.learned() == fitted.learned()
        with pytest.raises(DataError, match="fitted on 3 members, got 2"):
            restored.predict(p[:2])

    def test_each_row_is_predicted_from_itself_alone(self, name, settings):
        p, y = generated()
        blender = fit(name, settings, p, y)
        np.testing.assert_allclose(blender.predict(p[:, 40:41]), blender.predict(p)[40:41], rtol=1e-12)

    def test_rows_of_no_weight_do_not_count(self, name, settings):
        p, y = generated()
        weight = np.ones(len(y))
        weight[100:] = 0.0
        spoilt = y.copy()
        spoilt[100:] = 1.0 - spoilt[100:]
        one = fit(name, settings, p, y, weight).predict(p)
        np.testing.assert_allclose(fit(name, settings, p, spoilt, weight).predict(p), one, atol=1e-12)

    def test_float32_members_are_taken(self, name, settings):
        p, y = generated()
        np.testing.assert_allclose(
            fit_predict(name, settings, p.astype(np.float32), y), fit_predict(name, settings, p, y), atol=1e-4
        )

    @pytest.mark.slow  # takes seconds
    def test_predictions_that_others_made_give_finite_results(self, name, settings):
        p, y = ecg(with_readers=True)
        fold = np.arange(len(y)) % 5

        def on_rows(fitted, predicted):
            return fit(name, settings, p[:, fitted], y[fitted]).predict(p[:, predicted])

        p_NL = crossfit(on_rows, fold, N_LABELS)
        assert np.isfinite(p_NL).all()
        assert weighted_log_loss(y, p_NL) < max(weighted_log_loss(y, member) for member in p)


@pytest.mark.parametrize("weights", [METRIC_WEIGHTS, (1.0,) * N_LABELS], ids=["metric", "plain_mean"])
@pytest.mark.parametrize("with_readers", [False, True])
def test_the_default_blender_is_near_the_best_member_even_where_one_is_hard_to_beat(weights, with_readers):
    """Fourteen networks, one of them clearly best and one a copy of another; six readers who say only 0 or 1.

    Every fifth row is a fold. 827 rows hold some 15 to 40 positives a label, so other splits move the
    cross-fitted loss by about 0.0002.
    """
    p, y = ecg(with_readers=with_readers)

    def on_rows(fitted, predicted):
        return create_blender("convex").fit(p[:, fitted], y[fitted]).predict(p[:, predicted])

    crossfitted = weighted_log_loss(y, crossfit(on_rows, np.arange(len(y)) % 5, N_LABELS), weights)
    assert crossfitted <= min(weighted_log_loss(y, member, weights) for member in p) + 1e-4
