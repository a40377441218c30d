import json
import time

import pytest

from ichtune.errors import ConfigError, DataError
from ichtune.layout import Layout
from ichtune.locks import only_one
from ichtune.search.ledger import FAILED, FINISHED, INTERRUPTED, STOPPED, Ledger, TrialRecord
from ichtune.search.trial_table import (
    all_records,
    chosen_records,
    finished_searches,
    holder_path,
    is_running,
    ledger_path,
    lock_path,
    second_level_winners,
    train_top,
    trial_checkpoints,
    trial_folder,
    winners,
    write_trials,
)
from ichtune.second_level_recipe import LEVEL, SecondLevelRecipe
from ichtune.tables import TRIALS, read_table


@pytest.fixture
def layout(tmp_path, record):
    made = Layout(tmp_path)
    ledger = Ledger(ledger_path(made, "windows"))
    ledger.open({"folds": [0]})
    trials = [
        record(0, [0.3, 0.2], FINISHED, lr=1e-3),
        record(1, [0.1], STOPPED, lr=2e-3),
        record(2, [], FAILED, lr=3e-3),
        record(3, [0.25, 0.15], FINISHED, lr=4e-3),
        record(4, [0.4], INTERRUPTED, lr=5e-3),
        record(5, [0.5, 0.16], FINISHED, lr=4e-3),
    ]
    for trial in trials:
        ledger.start(trial)
        for epoch in trial.curve:
            ledger.epoch(trial.trial, epoch)
        if trial.status != INTERRUPTED:
            ledger.end(trial.trial, trial.status, "it broke" if trial.status == FAILED else "")
    return made


def test_winners_are_distinct_and_trained_to_the_end_first(layout):
    rates = [recipe.lr for recipe in winners(layout, 9)]

    assert rates == [4e-3, 1e-3, 2e-3]  # the repeated recipe once; the stopped one last, whatever its loss


def test_winners_are_no_more_than_asked_for(layout):
    assert [recipe.lr for recipe in winners(layout, 1)] == [4e-3]


def test_unlike_recipes_come_before_second_ones_of_a_kind(tmp_path, record):
    made = Layout(tmp_path)
    ledger = Ledger(ledger_path(made, "windows"))
    ledger.open({})
    kinds = [(0.10, "brain", 1), (0.11, "brain", 1), (0.12, "subdural", 1), (0.13, "brain", 0), (0.14, "subdural", 1)]
    for number, (loss, windows, neighbours) in enumerate(kinds):
        trial = record(number, [loss], FINISHED, lr=1e-3 * (number + 1), windows=windows, neighbours=neighbours)
        ledger.start(trial)
        ledger.epoch(number, trial.curve[0])
        ledger.end(number, FINISHED)

    assert [recipe.lr for recipe in winners(made, 9)] == pytest.approx([1e-3, 3e-3, 4e-3, 2e-3, 5e-3])


def test_the_table_holds_every_trial_and_its_curve(layout):
    write_trials(layout)

    table = read_table(layout.trials, TRIALS)

    assert table["trial"].tolist() == [0, 1, 2, 3, 4, 5]
    assert [epoch["val_weighted_log_loss"] for epoch in json.loads(table.loc[3, "curve"])] == [0.25, 0.15]
    assert json.loads(table.loc[1, "parameters"]) == {"lr": 2e-3}
    assert table.loc[3, "seconds"] == 4.0


def test_the_table_says_what_each_trial_was_judged_by_and_cost(tmp_path, record):
    made = Layout(tmp_path)
    ledger = Ledger(ledger_path(made, "windows"))
    ledger.open({})
    one = record(0, [0.5, 0.4, 0.3], FINISHED, rungs={1: 0.45, 3: 0.25})
    one.curve[0]["cost"] = 1.5
    one.optuna = {"params": {"lr": 1e-3}, "distributions": {}}
    ledger.start(one)
    for epoch in one.curve:
        ledger.epoch(0, epoch)
    ledger.end(0, FINISHED)
    ledger.start(record(1, []))
    ledger.duplicate(1, 0)
    ledger.start(record(2, []))
    ledger.duplicate(2, 4, "earlier", one.curve)
    write_trials(made)

    table = read_table(made.trials, TRIALS)

    assert table["epochs_spent"].tolist() == [3.5, 0.0, 0.0]
    assert table["n_rungs"].tolist() == [2, 0, 2]
    assert table.loc[0, "rung_loss"] == 0.25
    assert table["duplicate_of"].tolist() == ["", "0", "earlier/4"]
    assert table["status"].tolist() == [FINISHED, "duplicate", FINISHED]
    assert json.loads(table.loc[0, "optuna"]) == one.optuna


def test_no_search_names_the_command(tmp_path):
    with pytest.raises(DataError, match=r"run `ichtune search --space windows\.yaml` first"):
        all_records(Layout(tmp_path))


def damaged(layout, name):
    path = ledger_path(layout, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("no line of a ledger\n")


def test_a_damaged_ledger_is_in_no_other_search_s_way_and_is_named_once(layout, caplog):
    damaged(layout, "broken")

    assert list(all_records(layout)) == list(chosen_records(layout)) == ["windows"]
    assert len(winners(layout, 9)) == 3
    assert trial_checkpoints(layout) == {}
    write_trials(layout)

    assert set(read_table(layout.trials, TRIALS)["search"]) == {"windows"}
    (said,) = [line.getMessage() for line in caplog.records]
    assert said.startswith("search 'broken' is left out: ")
    assert "ledger.jsonl:1 is damaged" in said


def test_of_one_search_only_its_own_ledger_is_read(layout, caplog):
    damaged(layout, "broken")

    assert list(chosen_records(layout, "windows")) == ["windows"]
    assert caplog.records == []
    with pytest.raises(DataError, match=r"broken/ledger\.jsonl:1 is damaged"):
        chosen_records(layout, "broken")


def test_where_no_ledger_can_be_read_that_is_said(tmp_path):
    damaged(Layout(tmp_path), "broken")

    with pytest.raises(DataError, match=r"no ledger in .* can be read; restore"):
        all_records(Layout(tmp_path))


def test_an_unknown_search_lists_those_that_are_there(layout):
    with pytest.raises(DataError, match=r"no search 'x'.*windows"):
        winners(layout, 3, "x")


def test_winners_of_failed_trials_are_none(tmp_path, record):
    made = Layout(tmp_path)
    ledger = Ledger(ledger_path(made, "windows"))
    ledger.open({})
    ledger.start(record(0, []))
    ledger.end(0, FAILED, "why")

    with pytest.raises(DataError, match=r"no trial in .* has ended with a loss"):
        winners(made, 3)


def test_as_many_winners_are_trained_as_the_searches_want(tmp_path):
    made = Layout(tmp_path)
    for name, top in (("a", 2), ("b", 5)):
        Ledger(ledger_path(made, name)).open({"space": {"train": {"top": top}}})

    assert (train_top(made), train_top(made, "a")) == (5, 2)


def test_a_search_runs_while_somebody_holds_it_here_or_elsewhere(layout):
    assert not is_running(layout, "windows")
    with only_one(lock_path(layout, "windows"), "busy"):
        assert is_running(layout, "windows")
    for alive_until, expected in ((time.time() + 60, True), (time.time() - 60, False)):
        holder_path(layout, "windows").write_text(json.dumps({"alive_until": alive_until}))
        assert is_running(layout, "windows") is expected
    holder_path(layout, "windows").write_text("torn {")
    assert not is_running(layout, "windows")


class Searches:
    """Searches in a workspace whose trials left checkpoints."""

    def __init__(self, layout):
        self.layout = layout

    def add(self, name, *trials, folds=(0,), left=(0,)):
        ledger = Ledger(ledger_path(self.layout, name))
        ledger.open({"folds": list(folds)})
        for trial in trials:
            ledger.start(trial)
            for epoch in trial.curve:
                ledger.epoch(trial.trial, epoch)
            if trial.ended:
                ledger.end(trial.trial, trial.status)
            for fold in left:
                path = trial_folder(self.layout, name, trial.trial) / f"checkpoint_fold_{fold}.safetensors"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


def test_checkpoints_are_found_by_recipe_and_fold_and_the_longest_counts(tmp_path, record):
    layout = Layout(tmp_path)
    searches = Searches(layout)
    short, long, other = record(0, [0.3] * 2, STOPPED), record(0, [0.3] * 9), record(1, [0.3], STOPPED, lr=2e-3)
    searches.add("a", short, other)
    searches.add("b", long, folds=(0, 2), left=(0, 2))

    found = trial_checkpoints(layout)

    folder = trial_folder(layout, "b", 0).resolve()
    assert found == {
        (long.recipe.recipe_id, 0): folder / "checkpoint_fold_0.safetensors",
        (long.recipe.recipe_id, 2): folder / "checkpoint_fold_2.safetensors",
        (other.recipe.recipe_id, 0): trial_folder(layout, "a", 1).resolve() / "checkpoint_fold_0.safetensors",
    }


def test_of_a_shorter_stage_or_of_nothing_no_checkpoint_is_found(tmp_path, record):
    layout = Layout(tmp_path)
    Searches(layout).add("a", record(0, [0.3], STOPPED), left=())
    folder = trial_folder(layout, "a", 0)
    folder.mkdir(parents=True)
    (folder / "checkpoint_stage_0.safetensors").touch()

    assert trial_checkpoints(layout) == {}
    assert trial_checkpoints(Layout(tmp_path / "none")) == {}


def test_whether_there_is_a_file_can_be_asked_elsewhere(tmp_path, record):
    layout = Layout(tmp_path)
    Searches(layout).add("a", record(0, [0.3]), left=())

    assert trial_checkpoints(layout, lambda path: path.name.endswith("fold_0.safetensors"))
    assert trial_checkpoints(layout, lambda path: False) == {}


def test_a_search_that_was_killed_before_its_first_line_is_in_nobody_s_way(tmp_path, record):
    layout = Layout(tmp_path)
    Searches(layout).add("a", record(0, [0.3]))
    torn = ledger_path(layout, "torn")
    torn.parent.mkdir(parents=True)
    torn.write_text('{"event": "sea')

    assert len(trial_checkpoints(layout)) == 1
    write_trials(layout)


def add_second_level(layout, **losses):
    """Leave a search of the second level: a model a trial, with its loss."""
    ledger = Ledger(ledger_path(layout, "second"))
    ledger.open({"folds": [0], "space": {"level": 2, "train": {"top": 7}}})
    recipes = [SecondLevelRecipe(model=model.rstrip("_"), epochs=5 + len(model)) for model in losses]
    for number, (recipe, loss) in enumerate(zip(recipes, losses.values(), strict=True)):
        ledger.start(TrialRecord(number, {}, {}, recipe))
        ledger.epoch(number, {"epoch": 1, "val_weighted_log_loss": loss, "seconds": 1.0})
        ledger.end(number, FINISHED)
    return recipes


def test_winners_of_each_level_are_for_its_own_command(layout):
    gru, more, trees = add_second_level(layout, gru=0.01, gru_=0.02, hist_gradient_boosting=0.03)

    assert [recipe.lr for recipe in winners(layout, 9)] == [4e-3, 1e-3, 2e-3]
    assert second_level_winners(layout, 9) == [gru, trees, more]  # unlike ones first
    assert second_level_winners(layout, 1, "second") == [gru]
    with pytest.raises(
        ConfigError, match=r"'second' is of level 2; its winners are for `ichtune stack --search second`"
    ):
        winners(layout, 9, "second")
    with pytest.raises(ConfigError, match=r"'windows' is of level 1; its winners are for `ichtune train --search win"):
        second_level_winners(layout, 9, "windows")
    assert train_top(layout, level=LEVEL) == 7
    write_trials(layout)
    assert len(read_table(layout.trials, TRIALS)) == 9


def test_searches_with_winners_are_known_by_their_level(layout):
    assert finished_searches(layout, LEVEL) == []
    Ledger(ledger_path(layout, "empty")).open({"folds": [0], "space": {"level": 2, "train": {"top": 7}}})
    assert finished_searches(layout, LEVEL) == []
    add_second_level(layout, gru=0.1)
    assert finished_searches(layout, LEVEL) == ["second"]
    assert "second" not in finished_searches(layout, 1)
    with only_one(lock_path(layout, "second"), "it runs"):
        assert finished_searches(layout, LEVEL) == []


def test_without_a_search_of_the_level_that_is_said(tmp_path):
    made = Layout(tmp_path)
    with pytest.raises(DataError, match=r"no search in .*--space second_level.yaml"):
        second_level_winners(made, 3)
    add_second_level(made, gru=0.1)
    with pytest.raises(DataError, match=r"no search of level 1 in .*; there is second\. Run .*--space windows.yaml"):
        winners(made, 3)
    with pytest.raises(DataError, match=r"no search of level 1"):
        train_top(made)


def test_a_search_without_trials_is_known_by_its_space(tmp_path):
    made = Layout(tmp_path)
    Ledger(ledger_path(made, "new")).open({"space": {"level": 2, "train": {"top": 4}}})
    assert train_top(made, "new", LEVEL) == 4
    with pytest.raises(ConfigError, match=r"is of level 2"):
        train_top(made, "new")


def test_checkpoints_of_second_level_trials_are_found_by_recipe_and_fold(tmp_path):
    made = Layout(tmp_path)
    (gru,) = add_second_level(made, gru=0.1)
    path = trial_folder(made, "second", 0) / "checkpoint_fold_0.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    assert trial_checkpoints(made) == {(gru.recipe_id, 0): path.resolve()}
