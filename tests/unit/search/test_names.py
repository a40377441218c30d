from dataclasses import fields

from ichtune.search.names import METRIC, TIME_ATTR
from ichtune.space.settings import METRIC_NAME
from ichtune.training.loop import EpochResult


def test_trials_report_what_the_scheduler_judges_by():
    assert {METRIC, TIME_ATTR} <= {field.name for field in fields(EpochResult)}


def test_the_space_names_the_same_metric():
    assert METRIC == METRIC_NAME
