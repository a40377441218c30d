import numpy as np

from ichtune.ensemble.post_processing.any_at_most_sum import AnyAtMostSum
from ichtune.labels import ANY, LABELS


def test_any_is_lowered_to_the_sum_of_its_parts_and_never_raised():
    p = np.array([[0.7, 0.125, 0.125, 0.0, 0.0, 0.0], [0.2, 0.5, 0.5, 0.5, 0.5, 0.5]])
    lowered = AnyAtMostSum().predict(p)
    assert lowered[:, LABELS.index(ANY)].tolist() == [0.25, 0.2]
    np.testing.assert_array_equal(lowered[:, 1:], p[:, 1:])
