from ichtune.ensemble.post_processing.base import Step
from ichtune.ensemble.post_processing.steps import DEFAULT_STEPS, STEPS


def test_a_step_is_listed_under_its_own_name():
    assert all(issubclass(step, Step) and step.name == name for name, step in STEPS.items())


def test_what_adapts_to_a_test_set_is_never_tried_unasked():
    assert set(STEPS) - set(DEFAULT_STEPS) == {"prior_shift"}
