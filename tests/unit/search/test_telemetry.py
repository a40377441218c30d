from dataclasses import FrozenInstanceError, fields

import pytest

from ichtune.search.telemetry import TrialEvent
from ichtune.search.watchers import figures


def test_an_event_that_says_little_leaves_the_rest_unknown():
    event = TrialEvent("start", 3, "net", 0, 9, None)

    assert (event.rung, event.rung_loss, event.train_loss, event.gpu_memory_mb) == (None, None, None, None)
    assert (event.parameters, event.resources, event.node) == ({}, {}, "")
    assert figures(event)["val_weighted_log_loss"] is None


def test_events_share_no_mapping_and_cannot_be_changed():
    one, other = (TrialEvent("start", number, "net", 0, 9, None) for number in range(2))

    assert one.parameters is not other.parameters
    with pytest.raises(FrozenInstanceError):
        one.kind = "epoch"


def test_every_attribute_is_described():
    assert all(f"{field.name}" in (TrialEvent.__doc__ or "") for field in fields(TrialEvent))
