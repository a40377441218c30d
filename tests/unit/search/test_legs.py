"""What a search does next: whenever it is killed, and however often, it does what it would have done."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ichtune.search.ledger import DUPLICATE, FAILED, FINISHED, INTERRUPTED, STOPPED
from ichtune.search.legs import MAX_FAILED_IN_A_ROW, Budget, Legs, Nothing, gpu_hours, n_without_gain
from ichtune.search.schedulers import create_scheduler
from ichtune.space import EarlyStop, FoldSettings, Space, TrainSettings, read_space

ASHA = EarlyStop(type="asha", grace=1, max=9, factor=3)


def searching(space: Space, algorithm: str = "random", top: int = 3, **settings) -> Space:
    return replace(
        space, search=replace(space.search, algorithm=algorithm, **settings), train=TrainSettings(top), start_with=()
    )


def space_of(tmp_path: Path, algorithm: str, *lines: str, epochs: int = 9, **settings) -> Space:
    path = tmp_path / "space_of.yaml"
    parameters = "".join(f"  {line}\n" for line in ("architecture: tiny_convnet", f"epochs: {epochs}", *lines))
    path.write_text(f"version: 1\nparameters:\n{parameters}")
    return searching(read_space(path), algorithm, **({"early_stop": ASHA} | settings))


def decisions(path: Path) -> list[str]:
    """Every line of a ledger after the first."""
    return path.read_text().splitlines()[1:]


def fails_at_times(recipe) -> bool:
    return round(recipe.lr * 1e7) % 3 == 0


SHORT = EarlyStop(type="asha", grace=1, max=4, factor=2)
SEARCHES = {
    "asha": SHORT,
    "hyperband": replace(SHORT, type="hyperband"),
    "median": replace(SHORT, type="median"),
    "to the end": EarlyStop(type="none"),
    "short runs": replace(SHORT, judge="short"),
    "smaller images": replace(SHORT, fidelity="image_px"),
}


BUDGETS = {
    "smaller images": Budget(4),
    "hours of a gpu": Budget(6, gpu_hours=0.04),
    "no gain": Budget(20, until_no_gain=2),
}


@pytest.mark.slow  # plays a search again after each event
@pytest.mark.parametrize("kind", [*SEARCHES, "several folds", "failures", "repetitions", "hours of a gpu", "no gain"])
def test_killed_after_any_event_it_goes_on_as_if_it_had_not_been(fake_tune, tmp_path, kind):
    """For each prefix of the undisturbed ledger the continued one ends with the same lines, all of them in order."""
    lr = "[1e-3, 3e-3]" if kind == "repetitions" else "{low: 1e-4, high: 1e-2, log: true}"
    chosen = space_of(tmp_path, "random", f"lr: {lr}", epochs=4, early_stop=SEARCHES.get(kind, SHORT))
    if kind == "several folds":
        chosen = replace(chosen, folds=FoldSettings(search_on=(0, 2)))
    settings = {"fails": fails_at_times} if kind == "failures" else {}
    budget = BUDGETS.get(kind, Budget(6))
    undisturbed = fake_tune(chosen, None, budget, **settings)
    undisturbed.run()
    whole = undisturbed.ledger.path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    kinds = Counter(json.loads(line)["event"] for line in decisions(undisturbed.ledger.path))
    assert kinds["epoch"] >= kinds["start"] - kinds["duplicate"] > 0
    assert kinds["go_on"] > 0 or kind in ("to the end", "repetitions")
    assert kinds["start"] < budget.n_trials or kind not in ("hours of a gpu", "no gain")
    assert kinds["duplicate"] > 0 or kind != "repetitions"
    assert b'"failed"' in whole or kind != "failures"

    for number, end in enumerate(ends):
        path = tmp_path / "killed" / str(number) / "ledger.jsonl"
        path.parent.mkdir(parents=True)
        torn = whole[end : end + 20] if number % 2 else b""  # every other time within the next line
        path.write_bytes(whole[:end] + torn)
        fake_tune(chosen, path, budget, **settings).run()
        assert path.read_bytes() == whole, f"after line {number + 1}"


def test_killed_again_and_again_tpe_ends_with_the_same_table(space, fake_tune, tmp_path):
    chosen = searching(space, "tpe", early_stop=ASHA)
    undisturbed = fake_tune(chosen, None, 12)
    undisturbed.run()
    whole = undisturbed.ledger.path.read_bytes().splitlines(keepends=True)
    path = tmp_path / "killed" / "ledger.jsonl"
    path.parent.mkdir()

    for n_lines in range(9, len(whole), 9):
        fake_tune(chosen, path, 12).run()
        assert path.read_bytes().splitlines(keepends=True) == whole
        path.write_bytes(b"".join(whole[:n_lines]))


def test_killed_with_several_running_nothing_is_lost_and_nothing_repeated(tmp_path, fake_tune):
    """Which of them is ahead decides what is promoted, so the end differs; what was paid for does not."""
    chosen = space_of(tmp_path, "random", "lr: {low: 1e-4, high: 1e-2, log: true}", epochs=4, early_stop=SHORT)
    undisturbed = fake_tune(chosen, None, 6)
    undisturbed.run(concurrent=3)
    lines = undisturbed.ledger.path.read_bytes().splitlines(keepends=True)

    for n_lines in range(2, len(lines), 3):
        path = tmp_path / "killed" / str(n_lines) / "ledger.jsonl"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"".join(lines[:n_lines]))
        records = fake_tune(chosen, path, 6).run(concurrent=3)

        events = [json.loads(line) for line in decisions(path)]
        epochs = Counter((e["trial"], e["epoch"]) for e in events if e["event"] == "epoch")
        assert set(epochs.values()) == {1}
        finished = Counter(e["trial"] for e in events if e["event"] == "end" and e["status"] == FINISHED)
        assert set(finished.values()) == {1}
        assert path.read_bytes().startswith(b"".join(lines[:n_lines]))
        assert [r.recipe for r in records] == [r.recipe for r in undisturbed.ledger.records()]
        assert all(r.status in (FINISHED, STOPPED) for r in records)


def test_no_epoch_is_written_twice_and_no_finished_trial_begins_again(space, fake_tune):
    search = fake_tune(searching(space, early_stop=ASHA), None, 12)
    search.run()

    events = [json.loads(line) for line in decisions(search.ledger.path)]

    epochs = Counter((e["trial"], e["epoch"]) for e in events if e["event"] == "epoch")
    assert set(epochs.values()) == {1}
    assert search.trained == list(epochs)
    finished = [e["trial"] for e in events if e["event"] == "end" and e["status"] == FINISHED]
    assert len(finished) == len(set(finished))
    assert {e["trial"] for e in events if e["event"] == "go_on"} & set(finished)


def test_a_stopped_trial_is_promoted_later_and_goes_on_where_it_stood(space, fake_tune):
    search = fake_tune(searching(space, early_stop=ASHA), None, 12)
    search.run()

    events = [json.loads(line) for line in decisions(search.ledger.path)]

    late = [
        (e["trial"], len(search.ledger.records()[e["trial"]].curve))
        for i, e in enumerate(events)
        if e["event"] == "go_on" and any(f["event"] == "end" and f["trial"] == e["trial"] for f in events[:i])
    ]
    assert late
    starts = {event.trial: event.epoch for event in search.events if event.kind == "start"}
    assert all(starts[trial] > 0 for trial, _ in late)


def test_several_at_once_end_each_trial_once_and_judge_all(space, fake_tune):
    search = fake_tune(searching(space, early_stop=ASHA), None, 12)

    records = search.run(concurrent=4)

    assert len(records) == 12
    assert all(record.status in (FINISHED, STOPPED) for record in records)
    assert len(search.trained) == len(set(search.trained)) == sum(len(record.curve) for record in records)


def test_of_twelve_trials_four_pass_the_first_rung_and_the_best_of_all_is_trained_to_its_end(space, fake_tune):
    search = fake_tune(searching(space, top=1, early_stop=ASHA), None, 12)

    records = search.run()

    passed = {r.trial for r in records if 3 in r.rung_losses}
    by_rung = sorted(records, key=lambda r: r.rung_losses[1])
    assert len(passed) >= 4
    assert {r.trial for r in by_rung[:4]} <= passed
    assert sum(r.status == FINISHED for r in records) >= 1


@pytest.mark.parametrize("top", [1, 4])
def test_in_the_end_there_are_as_many_finished_trials_as_will_be_cross_validated(space, fake_tune, top):
    records = fake_tune(searching(space, top=top, early_stop=ASHA), None, 6).run()

    finished = [r for r in records if r.status == FINISHED]
    assert len(finished) == top
    stopped_at_first = [r for r in records if r.status == STOPPED and set(r.rung_losses) == {1}]
    assert all(
        r.rung_losses[1] <= other.rung_losses[1]
        for r in finished
        if set(r.rung_losses) == {1}
        for other in stopped_at_first
    )


def test_with_fewer_trials_than_winners_every_one_is_finished(space, fake_tune):
    records = fake_tune(searching(space, top=5, early_stop=ASHA), None, 3).run(concurrent=2)

    assert [r.status for r in records] == [FINISHED] * 3


def test_two_folds_are_promoted_by_the_mean_and_few_reach_the_second(space, fake_tune):
    chosen = replace(
        searching(space, top=1, early_stop=EarlyStop(type="median", grace=1, max=9, factor=3)), start_with=()
    )
    chosen = replace(chosen, folds=FoldSettings(search_on=(0, 1)))

    records = fake_tune(chosen, None, 10).run()

    on_second = [r for r in records if {e["fold"] for e in r.curve} == {0, 1}]
    after_first = [r for r in records if len(r.curve) >= 9]
    assert 0 < len(on_second) < len(after_first)
    assert all(len(r.curve) == 18 for r in on_second)
    assert max(min(r.losses) for r in on_second) < max(r.losses[8] for r in after_first)


def test_a_repeated_recipe_costs_nothing(tmp_path, fake_tune):
    search = fake_tune(space_of(tmp_path, "random", "lr: [1e-3, 3e-3]"), None, 5)

    records = search.run()

    repeated = [r for r in records if r.duplicate_of is not None]
    assert [r.status for r in repeated] == [DUPLICATE] * 3
    assert all(records[r.duplicate_of].recipe == r.recipe for r in repeated)
    assert {trial for trial, _ in search.trained} == {0, *({r.trial for r in records} - {r.trial for r in repeated})}
    told = [event for event in search.events if event.kind == "duplicate"]
    assert [event.reason for event in told] == [f"duplicate of trial {r.duplicate_of}" for r in repeated]


def test_a_recipe_that_another_search_finished_is_answered_with_its_curve(space, fake_tune):
    chosen = searching(space, early_stop=ASHA)
    earlier = fake_tune(chosen, None, 4)
    other = next(r for r in earlier.run() if r.status == FINISHED)
    search = fake_tune(chosen, None, 4, answers={other.recipe.recipe_id: ("earlier", other)})

    records = search.run()

    answered = records[other.trial]
    assert (answered.duplicate_of, answered.from_search, answered.status) == (other.trial, "earlier", FINISHED)
    assert answered.losses == other.losses
    assert answered.n_epochs_spent == 0
    assert other.trial not in {trial for trial, _ in search.trained}
    assert any(event.reason.endswith("of search earlier") for event in search.events)


def test_a_grid_ends_when_every_point_was_proposed(tmp_path, fake_tune):
    search = fake_tune(space_of(tmp_path, "grid", "lr: [1e-3, 2e-3, 3e-3]", "windows: [brain, bone]"), None, 100)

    records = search.run()

    assert len({r.recipe.recipe_id for r in records}) == len(records) == 6
    assert search.legs.why_done == "every point of the grid was proposed"


def test_the_gpu_hours_end_a_search_where_it_stands(space, fake_tune):
    search = fake_tune(searching(space, early_stop=EarlyStop(type="none")), None, Budget(50, gpu_hours=0.05))

    records = search.run()

    assert gpu_hours(records) == pytest.approx(0.05)  # 36 s on half a GPU are 0.005 hours
    assert len(search.trained) == 10
    assert search.legs.why_done == "0.05 GPU hours are spent"
    again = fake_tune(search.space, search.ledger.path, Budget(50, gpu_hours=0.05))
    again.run()
    assert again.trained == []
    more = fake_tune(search.space, search.ledger.path, Budget(50, gpu_hours=0.06))
    more.run()
    assert more.trained == [(1, 2), (1, 3)]


def test_trials_without_gain_end_a_search(space, fake_tune):
    search = fake_tune(searching(space, early_stop=EarlyStop(type="none")), None, Budget(60, until_no_gain=4))

    records = search.run()

    best = min(records, key=lambda r: r.last_loss)
    assert len(records) == best.trial + 5 < 60
    assert search.legs.why_done == "4 trials in a row brought no gain"


def test_a_gain_counts_from_when_it_was_made(record, tmp_path):
    first, second, late = record(0, [0.3]), record(1, [0.4], STOPPED), record(2, [0.1])
    first.n_before_end, second.n_before_end, late.n_before_end = 1, 2, 3
    assert n_without_gain([first, second]) == 1
    assert n_without_gain([first, second, late]) == 0

    first.curve[-1]["val_weighted_log_loss"], first.n_before_end = 0.05, 3  # it was promoted and finished last
    assert n_without_gain([first, second, late]) == 0
    assert n_without_gain([record(0, [0.3], STOPPED)]) == 0


def test_too_many_failures_in_a_row_end_a_search_and_a_person_may_go_on(space, fake_tune):
    search = fake_tune(searching(space, early_stop=ASHA), None, 20, fails=lambda recipe: True)

    records = search.run()

    assert [r.status for r in records] == [FAILED] * MAX_FAILED_IN_A_ROW
    assert search.legs.why_done == "5 trials in a row failed"
    assert search.legs.is_broken(records)
    mended = fake_tune(search.space, search.ledger.path, 20)
    assert not mended.legs.is_broken(mended.ledger.records())
    assert len(mended.run()) == 20


def test_a_kill_does_not_forgive_failures(space, fake_tune, tmp_path):
    search = fake_tune(searching(space, early_stop=EarlyStop(type="none")), None, 20, fails=lambda recipe: True)
    whole = search.run() and search.ledger.path.read_bytes()
    path = tmp_path / "killed" / "ledger.jsonl"
    path.parent.mkdir()
    path.write_bytes(whole[: whole.index(b'"failed", "trial": 3')])

    fake_tune(search.space, path, 20, fails=lambda recipe: True).run()

    assert path.read_bytes() == whole


def test_a_decision_is_in_the_ledger_before_its_leg_runs(space, fake_tune):
    search = fake_tune(searching(space), None, 3)

    record = search.legs.next()

    assert record.trial == 0
    assert search.ledger.path.read_text().count('"event": "start"') == 1
    assert search.legs.next().trial == 0  # whoever asks again is told of it again: it is interrupted
    assert search.legs.next(frozenset({0})).trial == 1
    assert len(search.ledger.records()) == 2


def test_while_others_run_and_may_be_promoted_there_is_nothing_yet(space, fake_tune):
    search = fake_tune(searching(space, early_stop=ASHA), None, 1)
    search.legs.next()

    assert search.legs.next(frozenset({0})) is Nothing.YET
    search.ledger.end(0, FAILED, "why")
    assert search.legs.next() is Nothing.LEFT


def test_a_scheduler_is_asked_once_for_each_state_of_the_ledger(space, fake_tune, monkeypatch):
    """A thousand trials take it a while, and Tune asks for legs ten times a second while there are none."""
    search = fake_tune(searching(space, early_stop=ASHA), None, 1)
    search.legs.next()
    asked = []
    monkeypatch.setattr(search.legs.scheduler, "promotable", lambda records: asked.append(len(records)) or [])

    for _ in range(3):
        assert search.legs.next(frozenset({0})) is Nothing.YET
    assert asked == [1]
    search.ledger.end(0, FAILED, "why")
    assert search.legs.next() is Nothing.LEFT
    assert asked == [1, 1]


def test_a_trial_that_was_cut_off_before_its_end_was_written_is_not_run_again(space, fake_tune, epoch):
    search = fake_tune(searching(space, early_stop=ASHA), None, 1)
    search.legs.next()
    for number in range(1, 10):
        search.ledger.epoch(0, epoch(number, 0.3))
    assert search.ledger.records()[0].status == INTERRUPTED

    assert search.legs.next() is Nothing.LEFT
    assert search.ledger.records()[0].status == FINISHED


def test_legs_may_be_made_before_there_is_a_ledger(space, tmp_path):
    from ichtune.search.ledger import Ledger

    legs = Legs(space, Ledger(tmp_path / "none.jsonl"), create_scheduler(ASHA), Budget(1))

    assert not legs.is_broken([])
