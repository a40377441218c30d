import numpy as np

from ichtune.ensemble.post_processing.any_at_least_max import AnyAtLeastMax
from ichtune.labels import ANY, LABELS


def test_any_is_raised_to_its_largest_part_and_never_lowered():
    p = np.array([[0.2, 0.1, 0.6, 0.1, 0.1, 0.1], [0.9, 0.1, 0.2, 0.1, 0.1, 0.1]])
    raised = AnyAtLeastMax().predict(p)
    assert raised[:, LABELS.index(ANY)].tolist() == [0.6, 0.9]
    np.testing.assert_array_equal(raised[:, 1:], p[:, 1:])
