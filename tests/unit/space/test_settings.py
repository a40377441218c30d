"""Settings of a search refuse what cannot work, naming the key."""

from collections.abc import Callable
from typing import Any

import pytest

from ichtune.space.settings import (
    EarlyStop,
    FoldSettings,
    MetricSettings,
    Resources,
    SearchSettings,
    SettingError,
    TrainSettings,
    read_time_s,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("6h", 21600),
        ("30m", 1800),
        ("30min", 1800),
        ("90s", 90),
        ("1h30m", 5400),
        ("1d", 86400),
        (20, 20),
        ("0.5h", 1800),
    ],
)
def test_lengths_of_time(written: Any, seconds: float) -> None:
    assert read_time_s(written) == seconds


@pytest.mark.parametrize("written", ["", "6x", "h", "30m1h", 0, -1, True, None, [1], "0s", float("nan")])
def test_what_is_no_length_of_time(written: Any) -> None:
    with pytest.raises(SettingError, match="6h, 30m, 90s"):
        read_time_s(written)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: SearchSettings(trials=0), "trials"),
        (lambda: SearchSettings(trials=True), "trials"),
        (lambda: SearchSettings(trials=1.5), "trials"),  # type: ignore[arg-type]
        (lambda: SearchSettings(seed=-1), "seed"),
        (lambda: SearchSettings(concurrent=0), "concurrent"),
        (lambda: SearchSettings(algorithm=3), "algorithm"),  # type: ignore[arg-type]
        (lambda: EarlyStop(grace=0), "grace"),
        (lambda: EarlyStop(grace=4, max=3), "grace"),
        (lambda: EarlyStop(factor=1), "factor"),
        (lambda: EarlyStop(type=""), "type"),
        (lambda: Resources(gpu=-0.5), "gpu"),
        (lambda: Resources(gpu=1.5), "gpu"),
        (lambda: Resources(gpu=0, cpu=0), "cpu"),
        (lambda: Resources(cpu=float("inf")), "cpu"),
        (lambda: FoldSettings(k=1), "k"),
        (lambda: FoldSettings(k=5, search_on=(5,)), "search_on"),
        (lambda: FoldSettings(search_on=()), "search_on"),
        (lambda: FoldSettings(search_on=(1, 1)), "search_on"),
        (lambda: FoldSettings(search_on=(-1,)), "search_on"),
        (lambda: MetricSettings(name="auc"), "name"),
        (lambda: MetricSettings(goal="maximize"), "goal"),
        (lambda: TrainSettings(top=0), "top"),
    ],
)
def test_what_cannot_work_is_refused_by_key(make: Callable[[], object], key: str) -> None:
    with pytest.raises(SettingError, match=r"must|needs|unknown") as caught:
        make()
    assert caught.value.key == key


def test_shares_of_a_gpu_and_of_cores_are_fine() -> None:
    assert Resources(gpu=0.25, cpu=1.5) == Resources(0.25, 1.5)
    assert Resources(gpu=2).gpu == 2.0


def test_one_fold_may_be_written_bare() -> None:
    assert FoldSettings(search_on=2).search_on == (2,)  # type: ignore[arg-type]


def test_both_spellings_of_the_goal_are_one() -> None:
    assert MetricSettings(goal="minimize") == MetricSettings(goal="min")
