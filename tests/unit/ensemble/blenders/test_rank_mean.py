import numpy as np
import pytest

from ichtune.ensemble.blenders.rank_mean import N_KNOTS, RankMean
from ichtune.errors import DataError
from ichtune.metrics import weighted_log_loss


def test_only_the_order_of_a_member_s_predictions_counts(generated):
    p, y, _ = generated(n_patients=400)
    bent = np.stack([p[0] ** 3, p[1], p[2] / 2])
    np.testing.assert_allclose(RankMean().fit(bent, y).predict(bent), RankMean().fit(p, y).predict(p), atol=0.02)


def test_it_is_a_probability_and_not_a_rank(generated):
    p, y, _ = generated(n_patients=400)
    blended = RankMean().fit(p, y).predict(p)
    np.testing.assert_allclose(blended.mean(axis=0), y.mean(axis=0), atol=0.01)
    assert weighted_log_loss(y, blended) < 1.1 * weighted_log_loss(y, p[0])


def test_knots_are_quantiles_and_ties_take_the_middle(generated):
    p, y, _ = generated()
    blender = RankMean().fit(p, y)
    assert blender.knots_.shape == (3, 6, N_KNOTS)
    assert blender.knots_[0, 0, N_KNOTS // 2] == pytest.approx(np.median(p[0, :, 0]), abs=1e-3)
    hard = (p > 0.5).astype(float)
    assert len(np.unique(RankMean().fit(hard[:1], y).predict(hard[:1])[:, 5])) == 2


def test_it_must_be_fitted_first(generated):
    p, _, _ = generated()
    with pytest.raises(DataError, match="knows no ranks yet"):
        RankMean().predict(p)
