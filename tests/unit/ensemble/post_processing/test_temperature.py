import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.ensemble.post_processing.temperature import Temperature
from ichtune.labels import N_LABELS


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_it_finds_the_temperature_and_undoes_it(calibrated, temperature):
    z, y, _ = calibrated(400)
    step = Temperature().fit(from_logits(temperature * z), y)
    np.testing.assert_allclose(step.numbers_, temperature, rtol=0.1)
    undone = step.predict(from_logits(temperature * z))
    np.testing.assert_allclose(undone, from_logits(z), atol=0.03)


def test_a_half_stays_a_half(calibrated):
    z, y, _ = calibrated(20)
    step = Temperature().fit(from_logits(3 * z), y)
    np.testing.assert_array_equal(step.predict(np.full((1, N_LABELS), 0.5)), 0.5)
