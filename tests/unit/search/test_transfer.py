"""What a search takes from earlier ones: only what was judged on the same slices, in its own terms."""

from dataclasses import replace
from pathlib import Path

import pytest

from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.layout import Layout
from ichtune.recipe import Recipe
from ichtune.search.ledger import FAILED, FINISHED, STOPPED, Ledger, TrialRecord
from ichtune.search.searchers import propose_trial
from ichtune.search.transfer import answers_of, told_by, translated
from ichtune.search.trial_table import ledger_path
from ichtune.space import Space, read_space

IDENTITY = {"space_id": "s", "fold_plan_hash": "f", "cache_id": "c", "labels_sha256": "l", "folds": [0]}
#: What may not differ where losses are compared.
COMPARED = [key for key in IDENTITY if key != "space_id"]

CONDITIONAL = """
parameters:
  optimizer: [adamw, sgd]
  momentum: {low: 0.8, high: 0.99, when: {optimizer: sgd}}
  beta1: {low: 0.85, high: 0.95, when: {optimizer: adamw}}
  windows: [brain, [[{low: 30, high: 60}, 80], [80, 200]]]
  lr: {low: 1e-4, high: 1e-2, log: true}
  epochs: 9
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "work")


def space_of(tmp_path: Path, text: str, *learn_from: str) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(f"version: 1\n{text}")
    space = read_space(path)
    return replace(space, search=replace(space.search, learn_from=learn_from))


def write(layout: Layout, name: str, records: list[TrialRecord], **identity) -> None:
    ledger = Ledger(ledger_path(layout, name))
    ledger.open({**IDENTITY, **identity})
    for record in records:
        ledger.start(record)
        for epoch in record.curve:
            ledger.epoch(record.trial, epoch)
        if record.ended:
            ledger.end(record.trial, record.status)


def test_nothing_is_learnt_from_unasked(layout, space, record):
    write(layout, "earlier", [record(0, [0.3])])

    assert told_by(layout, space, IDENTITY) == []


def test_trials_that_lie_in_the_space_are_told_with_comparable_losses(layout, tmp_path, record):
    space = space_of(tmp_path, "parameters:\n  lr: {low: 1e-4, high: 1e-2, log: true}\n", "earlier")
    records = [
        record(0, [1.0, 0.5], FINISHED, lr=1e-3, rungs={1: 1.0}),
        record(1, [0.8], STOPPED, lr=2e-3, rungs={1: 0.8}),
        record(2, [0.1], FINISHED, lr=1.0),
        record(3, [0.1], FAILED, lr=3e-3),
    ]
    write(layout, "earlier", records)

    told = told_by(layout, space, IDENTITY)

    assert [(trial.params, trial.value) for trial in told] == [
        ({"lr": 1e-3}, pytest.approx(0.5)),
        ({"lr": 2e-3}, pytest.approx(0.4)),
    ]
    assert propose_trial(space, [], 0, told) is not None


def test_every_trial_of_the_same_space_with_conditions_is_told(layout, tmp_path):
    """A value that is inactive in a trial lies outside its range or is absent, and does not matter."""
    space = space_of(tmp_path, CONDITIONAL, "earlier")
    records = []
    for number in range(12):
        made = propose_trial(space, records, number)
        made.status, made.curve = FINISHED, [{"epoch": 1, "val_weighted_log_loss": 0.1 + number / 100, "seconds": 1.0}]
        records.append(made)
    assert {r.recipe.optimizer for r in records} == {"adamw", "sgd"}
    write(layout, "earlier", records)

    told = told_by(layout, space, IDENTITY)

    assert [trial.params for trial in told] == [r.optuna["params"] for r in records]
    assert [trial.value for trial in told] == pytest.approx([0.1 + n / 100 for n in range(12)])


def test_what_the_spaces_do_not_share_does_not_matter(tmp_path, record):
    space = space_of(tmp_path, "parameters:\n  lr: {low: 1e-4, high: 1e-2, log: true}\n  batch_size: [16, 32]\n")

    told = translated(space, [record(0, [0.3], batch_size=16, dropout=0.3), record(1, [0.3], batch_size=64)])

    assert [trial.params for trial in told] == [{"lr": 1e-3, "batch_size": "16"}]


def test_a_trial_with_another_fixed_value_is_told_for_what_it_searched(tmp_path, record):
    space = space_of(tmp_path, "parameters:\n  lr: {low: 1e-4, high: 1e-2, log: true}\n  epochs: 4\n")

    assert [trial.params for trial in translated(space, [record(0, [0.3])])] == [{"lr": 1e-3}]


def test_a_trial_that_breaks_a_constraint_is_left_out(tmp_path, record):
    text = "parameters:\n  lr: {low: 1e-4, high: 1e-2, log: true}\nconstraints:\n  - {lr: {le: 2e-3}}\n"

    told = translated(space_of(tmp_path, text), [record(0, [0.3], lr=1e-3), record(1, [0.3], lr=5e-3)])

    assert [trial.params for trial in told] == [{"lr": 1e-3}]


def test_a_search_that_is_not_there_is_missed_and_the_others_are_named(layout, tmp_path, record):
    write(layout, "earlier", [record(0, [0.3])])

    with pytest.raises(DataError, match=r"learn_from: no search 'earler' in .*; there is earlier"):
        told_by(layout, space_of(tmp_path, "parameters:\n  lr: [1e-3, 2e-3]\n", "earler"), IDENTITY)


@pytest.mark.parametrize("key", COMPARED)
def test_a_search_that_was_judged_on_other_slices_or_labels_is_refused(layout, tmp_path, record, key):
    write(layout, "earlier", [record(0, [0.3])], **{key: [1] if key == "folds" else "other"})

    with pytest.raises(ConflictError, match=rf"'earlier' was judged with another {key}"):
        told_by(layout, space_of(tmp_path, "parameters:\n  lr: [1e-3, 2e-3]\n", "earlier"), IDENTITY)


@pytest.mark.parametrize("identity", [IDENTITY, IDENTITY | {"labels_sha256": None}])
def test_losses_of_labels_that_were_not_noted_are_neither_learnt_from_nor_answers(layout, tmp_path, record, identity):
    ledger = Ledger(ledger_path(layout, "earlier"))
    ledger.open({key: value for key, value in IDENTITY.items() if key != "labels_sha256"})
    ledger.start(record(0, [0.3]))
    ledger.epoch(0, record(0, [0.3]).curve[0])
    ledger.end(0, FINISHED)

    with pytest.raises(ConflictError, match=r"'earlier' was judged with another labels_sha256"):
        told_by(layout, space_of(tmp_path, "parameters:\n  lr: [1e-3, 2e-3]\n", "earlier"), identity)
    assert answers_of(layout, "own", identity) == {}


def test_a_damaged_ledger_answers_nothing_and_stops_nobody(layout, record):
    write(layout, "a", [record(0, [0.3])])
    write(layout, "broken", [record(0, [0.3], lr=2e-3)])
    with ledger_path(layout, "broken").open("a") as file:
        file.write("no line of a ledger\n")

    assert [name for name, _ in answers_of(layout, "own", IDENTITY).values()] == ["a"]


def test_a_search_of_which_nothing_lies_in_the_space_is_refused(layout, tmp_path, record):
    write(layout, "earlier", [record(0, [0.3], lr=1e-3)])

    with pytest.raises(ConfigError, match="no trial of search 'earlier' lies in space 'space'"):
        told_by(layout, space_of(tmp_path, "parameters:\n  lr: [5e-3, 2e-3]\n", "earlier"), IDENTITY)


def test_finished_trials_of_other_comparable_searches_answer(layout, record):
    write(layout, "a", [record(0, [0.3, 0.2]), record(1, [0.5], STOPPED, lr=2e-3), record(2, [0.5], FAILED, lr=3e-3)])
    write(layout, "b", [record(0, [0.4, 0.4]), record(1, [0.3], lr=4e-3)])
    write(layout, "folds", [record(0, [0.1], lr=5e-3)], folds=[0, 1])
    write(layout, "plan", [record(0, [0.1], lr=6e-3)], fold_plan_hash="other")
    write(layout, "relabelled", [record(0, [0.1], lr=8e-3)], labels_sha256="other")
    write(layout, "own", [record(0, [0.1], lr=7e-3)])

    answers = answers_of(layout, "own", IDENTITY)

    told = {r.recipe.lr: (name, r.trial, r.last_loss) for name, r in answers.values()}
    assert told == {1e-3: ("a", 0, 0.2), 4e-3: ("b", 1, 0.3)}
    assert all(recipe_id == r.recipe.recipe_id for recipe_id, (_, r) in answers.items())


def test_an_answer_is_handed_on_from_whom_it_was_trained_by(layout, record):
    write(layout, "a", [record(0, [0.3])])
    ledger = Ledger(ledger_path(layout, "b"))
    ledger.open(IDENTITY)
    ledger.start(record(0, []))
    ledger.duplicate(0, 0, "a", record(0, [0.3]).curve)

    assert [name for name, _ in answers_of(layout, "own", IDENTITY).values()] == ["a"]


def test_a_search_that_was_killed_before_its_first_line_is_in_nobodys_way(layout):
    path = ledger_path(layout, "killed")
    path.parent.mkdir(parents=True)
    path.write_text('{"event": "sea')

    assert answers_of(layout, "own", IDENTITY) == {}


def test_a_recipe_of_other_windows_is_matched_by_their_numbers(tmp_path):
    space = space_of(tmp_path, CONDITIONAL)
    recipe = Recipe(optimizer="adamw", beta1=0.9, windows=[[40, 80], [80, 200]], lr=1e-3)
    one = TrialRecord(0, {}, {}, recipe, FINISHED, "", [{"epoch": 1, "val_weighted_log_loss": 0.2, "seconds": 1.0}])

    (told,) = translated(space, [one])

    assert told.params["windows[1][0].center"] == 40
    assert told.params["windows"] == space.parameter("windows").domain.labels[1]
