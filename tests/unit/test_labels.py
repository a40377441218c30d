"""Labels: the competition's six, the summary label first, counted twice."""

from ichtune.labels import ANY, LABELS, METRIC_WEIGHTS, N_LABELS, SUBTYPES


def test_any_comes_first_and_the_subtypes_follow_in_alphabetical_order() -> None:
    assert (ANY, *sorted(SUBTYPES)) == LABELS
    assert len(set(LABELS)) == N_LABELS == 6


def test_the_metric_counts_any_twice_and_divides_by_seven() -> None:
    assert dict(zip(LABELS, METRIC_WEIGHTS, strict=True)) == {ANY: 2.0} | dict.fromkeys(SUBTYPES, 1.0)
    assert sum(METRIC_WEIGHTS) == 7.0
