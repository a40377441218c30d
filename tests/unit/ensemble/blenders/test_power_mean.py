import numpy as np
import pytest

from ichtune.ensemble.blenders.power_mean import PowerMean
from ichtune.errors import ConfigError, DataError
from ichtune.metrics import weighted_log_loss


@pytest.mark.parametrize(
    ("exponent", "expected"),
    [
        (1.0, lambda p: p.mean(axis=0)),
        (0.0, lambda p: np.exp(np.log(p).mean(axis=0))),
        (-1.0, lambda p: 2 / (1 / p).sum(axis=0)),
    ],
)
def test_known_means(generated, exponent, expected):
    p, y, _ = generated(noises=(0.5, 1.0))
    np.testing.assert_allclose(PowerMean(exponent).fit(p, y).predict(p), expected(p), rtol=1e-9)


def test_the_exponent_that_is_found_is_the_best_on_a_grid(generated):
    p, y, _ = generated()
    found = PowerMean().fit(p, y)
    loss = weighted_log_loss(y, found.predict(p))
    grid = [weighted_log_loss(y, PowerMean(e).fit(p, y).predict(p)) for e in np.linspace(-2, 6, 33)]
    assert loss <= min(grid) + 1e-6
    assert found.exponent_ != 1.0


def test_settings_and_what_was_learned_are_checked(generated):
    with pytest.raises(ConfigError, match="between -2 and 6, or null to find one, got 9"):
        PowerMean(9)
    p, y, _ = generated()
    with pytest.raises(DataError, match="no exponent yet"):
        PowerMean().predict(p)
    with pytest.raises(DataError, match="exponent_ must lie between -2 and 6, got 'x'"):
        PowerMean().restore({**PowerMean().fit(p, y).learned(), "exponent_": "x"})
