import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.post_processing.any_noisy_or import AnyNoisyOr, union_logits
from ichtune.ensemble.post_processing.base import ANY_COLUMN, PARTS
from ichtune.errors import DataError


def of_parts(calibrated, seed=0):
    """Independent parts, ``any`` their union."""
    z, y, _ = calibrated(300, seed=seed, centre=-3.0)
    p = from_logits(z)
    y[:, ANY_COLUMN] = y[:, PARTS].max(axis=1)
    return p, y


def test_the_union_is_one_minus_the_product():
    p = np.random.default_rng(0).random((50, 6))
    expected = 1 - np.prod(1 - p[:, PARTS], axis=1)
    np.testing.assert_allclose(from_logits(union_logits(p)), expected, rtol=1e-9)
    assert np.isfinite(union_logits(np.zeros((1, 6)))).all()
    assert np.isfinite(union_logits(np.ones((1, 6)))).all()


def test_any_that_knows_nothing_takes_its_parts_word(calibrated):
    p, y = of_parts(calibrated)
    p[:, ANY_COLUMN] = y[:, ANY_COLUMN].mean()
    assert AnyNoisyOr().fit(p, y).share_ > 0.9


def test_any_that_knows_all_keeps_its_own(calibrated):
    p, y = of_parts(calibrated)
    p[:, ANY_COLUMN] = from_logits(union_logits(p))
    p[:, PARTS] = y[:, PARTS].mean(axis=0)
    assert AnyNoisyOr().fit(p, y).share_ < 0.1


def test_a_share_moves_the_log_odds_that_far():
    p = np.random.default_rng(1).random((20, 6))
    moved = AnyNoisyOr().restore({"share": 0.25}).predict(p)
    expected = 0.75 * to_logits(p[:, ANY_COLUMN]) + 0.25 * union_logits(p)
    np.testing.assert_allclose(to_logits(moved[:, ANY_COLUMN]), expected, rtol=1e-9)


@pytest.mark.parametrize("learned", [{}, {"share": None}, {"share": 1.5}, {"share": [0.5]}])
def test_what_is_no_share_is_refused(learned):
    with pytest.raises(DataError, match="share"):
        AnyNoisyOr().restore(learned)
