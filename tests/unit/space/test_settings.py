"""Settings of a search refuse what cannot work, naming the key."""

from collections.abc import Callable

import pytest

from ichtune.space.settings import (
    FIDELITIES,
    JUDGES,
    EarlyStop,
    FoldSettings,
    MetricSettings,
    Resources,
    SearchSettings,
    SettingError,
    TrainSettings,
)


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
        (lambda: EarlyStop(judge="cooldwn"), "judge"),
        (lambda: EarlyStop(fidelity="epoch"), "fidelity"),
        (lambda: EarlyStop(cooldown=0), "cooldown"),
        (lambda: EarlyStop(cooldown=8.5), "cooldown"),
        (lambda: EarlyStop(cooldown=True), "cooldown"),
        (lambda: SearchSettings(gpu_hours=0), "gpu_hours"),
        (lambda: SearchSettings(gpu_hours="6h"), "gpu_hours"),  # type: ignore[arg-type]
        (lambda: SearchSettings(until_no_gain=0), "until_no_gain"),
        (lambda: SearchSettings(learn_from=("a", "")), "learn_from"),
        (lambda: SearchSettings(learn_from=("a", "a")), "learn_from"),
        (lambda: SearchSettings(learn_from=("../a",)), "learn_from"),
        (lambda: Resources(gpu="auto!"), "gpu"),  # type: ignore[arg-type]
        (lambda: Resources(auto="yes"), "auto"),  # type: ignore[arg-type]
        (lambda: Resources(gpu_memory_mb=-1), "gpu_memory_mb"),
        (lambda: Resources(gpu=0, gpu_memory_mb=800), "gpu_memory_mb"),
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


def test_a_share_that_is_probed_stays_a_number_beside_the_mark() -> None:
    probed = Resources(gpu="auto", cpu=2)  # type: ignore[arg-type]

    assert probed == Resources(gpu=1.0, cpu=2.0, auto=True)
    assert not Resources().auto


def test_one_search_to_learn_from_may_be_written_bare() -> None:
    assert SearchSettings(learn_from="first").learn_from == ("first",)  # type: ignore[arg-type]


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_every_judge_and_fidelity_is_accepted(judge: str, fidelity: str) -> None:
    stop = EarlyStop(judge=judge, fidelity=fidelity, cooldown=1)
    assert (stop.judge, stop.fidelity, stop.cooldown) == (judge, fidelity, 1.0)


@pytest.mark.parametrize(
    ("stop", "kept"),
    [
        (EarlyStop("asha", max=9, judge="cooldown"), "type grace max factor judge cooldown fidelity"),
        (EarlyStop("asha", max=9, judge="last"), "type grace max factor judge fidelity"),
        (EarlyStop("asha", max=9, fidelity="patients"), "type grace max factor fidelity"),
        (EarlyStop(), "type"),
    ],
)
def test_what_has_no_effect_is_told_apart(stop: EarlyStop, kept: str) -> None:
    assert list(stop.effective) == kept.split()
    assert stop.effective.keys() | stop.without_effect.keys() == vars(stop).keys()
