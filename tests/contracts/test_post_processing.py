"""Every step of the table keeps the laws of ``ichtune.ensemble.post_processing.base.Step``."""

import json

import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.ensemble.post_processing.steps import STEPS
from ichtune.errors import DataError
from ichtune.labels import N_LABELS


def generated(seed=0, n_rows=240):
    """Predictions that are too sure, labels with some of each."""
    rng = np.random.default_rng(seed)
    z = -2 + 1.7 * rng.standard_normal((n_rows, N_LABELS))
    y = (rng.random(z.shape) < from_logits(z)).astype(float)
    return from_logits(1.5 * z + 0.2), y


def fitted(name, p, y, weight=None):
    return STEPS[name]().fit(p, y, weight)


@pytest.mark.parametrize("name", STEPS)
class TestLaws:
    def test_predictions_are_probabilities(self, name):
        p, y = generated()
        p_NL = fitted(name, p, y).predict(p)
        assert p_NL.shape == p.shape
        assert p_NL.dtype == np.float64
        assert p_NL.min() >= 0
        assert p_NL.max() <= 1

    @pytest.mark.filterwarnings("error")
    def test_hard_predictions_and_labels_without_a_positive_stay_finite(self, name):
        p, y = generated()
        y[:, 1], y[:, 2] = 0.0, 1.0
        ends = np.tile([[0.0], [1.0]], N_LABELS)
        for hard in (p, (p > 0.5).astype(float), 1.0 - y, y, np.zeros_like(y), np.ones_like(y)):
            step = fitted(name, hard, y)
            for p_NL in (step.predict(hard), step.predict(ends), step.predict(p)):
                assert np.isfinite(p_NL).all()
                assert p_NL.min() >= 0
                assert p_NL.max() <= 1

    def test_labels_that_it_does_not_change_stay_as_they_are(self, name):
        p, y = generated()
        others = [c for c in range(N_LABELS) if c not in STEPS[name].changes]
        np.testing.assert_array_equal(fitted(name, p, y).predict(p)[:, others], p[:, others])
        assert STEPS[name].changes

    def test_order_of_rows_does_not_matter(self, name):
        p, y = generated()
        order = np.random.default_rng(1).permutation(len(y))
        shuffled = fitted(name, p[order], y[order])
        np.testing.assert_allclose(shuffled.predict(p[order]), fitted(name, p, y).predict(p)[order], atol=1e-8)

    def test_each_row_is_predicted_from_itself_alone_unless_it_says_so(self, name):
        p, y = generated()
        step = fitted(name, p, y)
        alone, among = step.predict(p[40:41]), step.predict(p)[40:41]
        if STEPS[name].is_transductive:
            assert np.abs(alone - among).max() > 0.01
        else:
            np.testing.assert_allclose(alone, among, rtol=1e-12)

    def test_fitting_twice_forgets_the_first_and_leaves_its_input_alone(self, name):
        p, y = generated()
        kept_p, kept_y = p.copy(), y.copy()
        step = STEPS[name]().fit(*generated(seed=9)).fit(p, y)
        np.testing.assert_array_equal(step.predict(p), fitted(name, p, y).predict(p))
        np.testing.assert_array_equal(p, kept_p)
        np.testing.assert_array_equal(y, kept_y)

    def test_what_it_learned_goes_through_json_and_predicts_the_same_bits(self, name):
        p, y = generated()
        step = fitted(name, p, y)
        restored = STEPS[name]().restore(json.loads(json.dumps(step.learned(), allow_nan=False)))
        np.testing.assert_array_equal(restored.predict(p), step.predict(p))
        assert restored.learned() == step.learned()

    def test_rows_of_no_weight_do_not_count(self, name):
        p, y = generated()
        weight = np.ones(len(y))
        weight[100:] = 0.0
        spoilt = y.copy()
        spoilt[100:] = 1.0 - spoilt[100:]
        one = fitted(name, p, y, weight).predict(p)
        np.testing.assert_allclose(fitted(name, p, spoilt, weight).predict(p), one, atol=1e-12)

    def test_what_cannot_be_fitted_is_refused(self, name):
        p, y = generated()
        bad = p.copy()
        bad[3, 2] = np.nan
        with pytest.raises(DataError, match="row 3, label 'intraparenchymal'"):
            fitted(name, bad, y)
        with pytest.raises(DataError, match="labels must have shape"):
            fitted(name, p, y[:-1])

    def test_nothing_is_predicted_before_it_has_learned(self, name):
        p, _ = generated()
        step = STEPS[name]()
        if step.learned():
            with pytest.raises(DataError, match=f"the step {name} has learned nothing yet: call fit before predict"):
                step.predict(p)
            with pytest.raises(DataError):
                STEPS[name]().restore({})
