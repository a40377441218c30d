import numpy as np
import pytest

from ichtune.ensemble.post_processing.platt import Platt
from ichtune.ensemble.post_processing.temperature import Temperature
from ichtune.errors import DataError
from ichtune.labels import N_LABELS


def test_each_label_learns_from_itself_alone(calibrated):
    z, y, _ = calibrated()
    p = 1 / (1 + np.exp(-z))
    one = Platt().fit(p, y)
    spoilt = p.copy()
    spoilt[:, 2] = 0.5
    other = Platt().fit(spoilt, y)
    same = [c for c in range(N_LABELS) if c != 2]
    np.testing.assert_array_equal(other.numbers_[:, same], one.numbers_[:, same])
    assert one.numbers_.shape == (2, N_LABELS)


def test_what_it_learned_has_a_name_and_a_number_for_each_label(calibrated):
    z, y, _ = calibrated(20)
    told = Platt().fit(1 / (1 + np.exp(-z)), y).learned()
    assert {key: len(values) for key, values in told.items()} == {"scale": N_LABELS, "offset": N_LABELS}
    assert Temperature().learned() == {"temperature": None}


@pytest.mark.parametrize("learned", [{}, {"scale": [1.0] * N_LABELS}, {"scale": [1.0] * 5, "offset": [0.0] * 5}])
def test_what_no_such_step_learned_is_refused(learned):
    with pytest.raises(DataError, match="6 numbers"):
        Platt().restore(learned)
