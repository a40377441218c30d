"""The second level in a search: it reads no pixels, is about the runs that there are, and goes on to the same bits."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.search import mirror
from ichtune.search.checks import check_data, check_space, inputs_of
from ichtune.search.dry_run import describe_search
from ichtune.search.identity import check_noted, identity_of, not_comparable
from ichtune.search.ledger import FINISHED, Ledger, TrialRecord
from ichtune.search.levels import search_level
from ichtune.search.names import METRIC
from ichtune.search.objective import FoldTrial, checkpoint_path, plan_of
from ichtune.search.searchers import propose_trial
from ichtune.search.stages import Stage
from ichtune.search.transfer import answers_of, told_by
from ichtune.search.trial_table import ledger_path, write_trials
from ichtune.second_level.fold_run import open_second_level_fold
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.space import EarlyStop, Space, read_space
from ichtune.tables import PREDICTIONS, read_table, table_about, write_json, write_table
from ichtune.workspace import Workspace

GRU = {"model": "gru", "hidden": 4, "layers": 1, "epochs": 3, "batch_size": 4}
SPACE = """\
level: 2
search: {algorithm: random, trials: 4, seed: 3, early_stop: {type: asha, grace: 1, factor: 2}}
parameters:
  model: [gru, gaussian]
  hidden: {choices: [4, 8], when: {model: gru}}
  layers: 1
  epochs: {value: 3, when: {model: gru}}
start_with: [{model: gaussian}]
"""


def space_of(tmp_path: Path, text: str = SPACE) -> Space:
    path = tmp_path / "second.yaml"
    path.write_text(text)
    return read_space(path)


@pytest.fixture
def workspace(first_level_workspace: Callable[..., Workspace]) -> Workspace:
    return first_level_workspace()


def settled(workspace: Workspace, space: Space) -> Space:
    return search_level(2).settled(workspace, space)


def trained_again(workspace: Workspace, recipe_id: str) -> Workspace:
    """Let a run predict a little otherwise."""
    path = workspace.layout.oof(recipe_id)
    table = read_table(path, PREDICTIONS)
    table["p_any"] = table["p_any"] * 0.99
    write_table(table, path, PREDICTIONS, table_about(path)["inputs"])
    return Workspace(workspace.layout.root)


def test_no_pixels_are_read(workspace: Workspace, tmp_path: Path) -> None:
    space = space_of(tmp_path)
    shutil.rmtree(workspace.layout.hu)

    check_space(workspace, space)
    check_data(workspace, inputs_of(space))

    assert inputs_of(space) == []
    assert search_level(2).pixels([SecondLevelRecipe()]) == frozenset()


def test_without_runs_of_the_first_level_nothing_is_searched(fake_workspace: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"second.*learns from the runs of the first level.*run `ichtune train` first"):
        check_space(fake_workspace(), space_of(tmp_path))


def test_runs_of_the_second_level_and_unfinished_ones_are_not_all(workspace: Workspace, tmp_path: Path) -> None:
    first, second = workspace.run_ids()
    path = workspace.layout.runs / second / "recipe.json"
    write_json({"recipe": {"level": 2, "model": "gru"}, "summary": "gru"}, path)

    (parameter,) = [p for p in settled(workspace, space_of(tmp_path)).parameters if p.key == "members"]
    assert parameter.domain.options[0].value == (first,)
    named = space_of(tmp_path, SPACE.replace("  layers: 1\n", f'  layers: 1\n  members: ["{second}"]\n'))
    with pytest.raises(ConfigError, match=rf"second.yaml:7:\d+: parameters.members: '{second}' is no complete run"):
        check_space(workspace, named)


def test_runs_that_cannot_be_learnt_from_are_refused_at_once(workspace: Workspace, tmp_path: Path) -> None:
    path = workspace.layout.oof(workspace.run_ids()[0])
    table = read_table(path, PREDICTIONS)
    write_table(table.iloc[1:], path, PREDICTIONS, table_about(path)["inputs"])
    with pytest.raises(DataError, match=workspace.run_ids()[0]):
        check_space(Workspace(workspace.layout.root), space_of(tmp_path))


def test_embeddings_that_are_not_there_are_missed_at_once(workspace: Workspace, tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE.replace("  layers: 1\n", "  layers: 1\n  embeddings: [0, 4]\n"))
    with pytest.raises(DataError, match=r"embeddings"):
        check_space(workspace, space)


def test_a_model_that_is_not_installed_is_missed_at_once(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(recipe: SecondLevelRecipe) -> None:
        if recipe.model == "lightgbm":
            raise ConfigError("lightgbm is not installed")

    monkeypatch.setattr("ichtune.search.second_level.create_series_model", create)
    space = space_of(tmp_path, SPACE.replace("[gru, gaussian]", "[gru, gaussian, lightgbm]"))
    with pytest.raises(ConfigError, match=r"second.yaml:4:\d+: parameters.model\[2\]: lightgbm is not installed"):
        check_space(workspace, space)


def test_the_runs_are_part_of_what_a_search_is(workspace: Workspace, tmp_path: Path) -> None:
    space = settled(workspace, space_of(tmp_path))
    identity = identity_of(workspace, space)
    first, second = workspace.run_ids()

    assert set(identity["first_level"]) == {first, second}
    assert identity["first_level"][first] != identity["first_level"][second]
    shuffled = read_table(workspace.layout.oof(first), PREDICTIONS).sample(frac=1.0, random_state=1)
    write_table(shuffled, workspace.layout.oof(first), PREDICTIONS, {"another": "note"})
    assert identity_of(workspace, space) == identity
    changed = identity_of(trained_again(workspace, first), space)
    assert {key for key in identity if identity[key] != changed[key]} == {"first_level"}
    assert changed["first_level"][second] == identity["first_level"][second]
    assert not_comparable(identity, changed) == ["first_level"]


def test_other_runs_make_another_search_which_is_said(workspace: Workspace, tmp_path: Path) -> None:
    before = identity_of(workspace, settled(workspace, space_of(tmp_path)))
    ledger = Ledger(ledger_path(workspace.layout, "second"))
    ledger.open(before)
    ledger.start(TrialRecord(0, {}, {}, SecondLevelRecipe(members=tuple(before["first_level"]))))
    first, second = workspace.run_ids()
    check_noted(ledger, before)

    with pytest.raises(ConfigError, match=rf"'second' was started on other runs .*\(trained again {first}\).* --name$"):
        check_noted(ledger, identity_of(trained_again(workspace, first), settled(workspace, space_of(tmp_path))))
    shutil.rmtree(workspace.layout.runs / second)
    fewer = identity_of(workspace, settled(workspace, space_of(tmp_path)))
    with pytest.raises(ConfigError, match=rf"\(left out now {second}; trained again {first}\)"):
        check_noted(ledger, fewer)
    more = {**before, "first_level": {**before["first_level"], "cccccccccccc": "x"}}
    with pytest.raises(ConfigError, match=r"\(not learnt from then cccccccccccc\).* `members: \['aaaaaaaaaaa1', 'bbb"):
        check_noted(ledger, more)


def test_losses_of_the_first_level_and_of_the_second_are_never_compared(workspace: Workspace, tmp_path: Path) -> None:
    second = space_of(tmp_path, "level: 2\nparameters: {lr: [1e-3, 1e-2], epochs: 5}\n")
    of_second = identity_of(workspace, settled(workspace, second))
    first = replace(second, level=1)
    of_first = identity_of(workspace, first)
    for name, identity, recipe in (
        ("one", of_first, first.default),
        ("two", of_second, SecondLevelRecipe(members=tuple(of_second["first_level"]))),
    ):
        ledger = Ledger(ledger_path(workspace.layout, name))
        ledger.open(identity)
        ledger.start(TrialRecord(0, {}, {}, recipe))
        ledger.epoch(0, {"epoch": 1, "val_weighted_log_loss": 0.3, "seconds": 1.0})
        ledger.end(0, FINISHED)

    assert "first_level" not in of_first
    for name, space, identity in (("one", second, of_second), ("two", first, of_first)):
        learning = replace(space, search=replace(space.search, learn_from=(name,)))
        with pytest.raises(ConflictError, match=r"another first_level"):
            told_by(workspace.layout, learning, identity)
    assert answers_of(workspace.layout, "new", of_first).keys() == {first.default.recipe_id}
    assert len(answers_of(workspace.layout, "new", of_second)) == 1


def test_a_search_learns_from_an_earlier_one_on_the_same_runs(workspace: Workspace, tmp_path: Path) -> None:
    space = settled(workspace, space_of(tmp_path))
    identity = identity_of(workspace, space)
    ledger = Ledger(ledger_path(workspace.layout, "earlier"))
    ledger.open(identity)
    for number in range(3):
        record = propose_trial(space, ledger.records() if number else [], number)
        assert record is not None
        ledger.start(record)
        ledger.epoch(number, {"epoch": 1, "val_weighted_log_loss": 0.3 + number, "seconds": 1.0})
        ledger.end(number, FINISHED)

    told = told_by(workspace.layout, replace(space, search=replace(space.search, learn_from=("earlier",))), identity)

    assert [trial.value for trial in told] == [0.3, 1.3, 2.3]
    assert told[0].params["model"] == "gaussian"
    write_trials(workspace.layout)
    assert json.loads(workspace.trials["recipe"][0])["level"] == 2


@pytest.fixture
def config(workspace: Workspace, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    members = tuple(workspace.run_ids())

    def make(name: str, **recipe: Any) -> dict[str, Any]:
        chosen = SecondLevelRecipe(**{**GRU, **recipe}, members=members)
        return {
            "work": str(workspace.layout.root),
            "folder": str(tmp_path / name),
            "trial": 0,
            "folds": [0],
            "recipe": chosen.to_dict(),
            "summary": chosen.summary,
            "parameters": {},
            "early_stop": asdict(EarlyStop("asha", max=3)),
            "rungs": [1, 2],
            "told": 0,
            "to_end": False,
            "resources": {"cpu": 1.0},
            "n_threads": 1,
            "wants_gpu": False,
            "gpu_memory_mb": None,
        }

    return make


def results_of(trial: FoldTrial, n: int = 99) -> list[dict[str, Any]]:
    found = [trial.step()]
    while len(found) < n and not found[-1]["done"]:
        found.append(trial.step())
    return [{k: v for k, v in one.items() if k not in ("seconds", "images_per_second")} for one in found]


def test_a_trial_is_judged_at_its_rungs_and_trains_as_the_command_does(config: Any, workspace: Workspace) -> None:
    results = results_of(FoldTrial(config("straight")))
    run = open_second_level_fold(workspace, SecondLevelRecipe.from_dict(config("x")["recipe"]), 0)
    while not run.finished:
        run.run_epoch()

    assert [one["failure"] for one in results] == ["", "", ""]
    assert [one.get("rung") for one in results] == [1, 2, None]
    assert [one["rung_loss"] for one in results[:2]] == [one[METRIC] for one in results[:2]]
    assert [one[METRIC] for one in results] == [epoch.val_weighted_log_loss for epoch in run.history]
    assert results[0]["gpu"] == 0.0


@pytest.mark.parametrize("n_before", [1, 2])
def test_killed_after_an_epoch_it_goes_on_with_the_same_numbers(config: Any, n_before: int) -> None:
    straight = results_of(FoldTrial(config("straight")))
    assert results_of(FoldTrial(config("killed")), n_before) == straight[:n_before]

    assert results_of(FoldTrial({**config("killed"), "told": n_before})) == straight[n_before:]
    assert results_of(FoldTrial({**config("killed"), "told": n_before - 1})) == straight[n_before - 1 :]


@pytest.mark.parametrize(
    "recipe", [{"model": "gaussian"}, {"model": "hist_gradient_boosting", "rounds": 3, "neighbours": 1}]
)
def test_a_model_of_one_epoch_is_judged_at_its_end_only(config: Any, recipe: dict[str, Any]) -> None:
    asked = config("one", **recipe)
    (result,) = results_of(FoldTrial(asked))

    assert plan_of(asked).rung_epochs == {}
    assert result["done"]
    assert not result["failure"]
    assert "rung" not in result


def test_a_trial_on_several_folds_tells_their_mean(config: Any, workspace: Workspace) -> None:
    asked = {**config("folds", model="gaussian"), "folds": [0, 2], "rungs": []}
    first, second = results_of(FoldTrial(asked))
    recipe = SecondLevelRecipe.from_dict(asked["recipe"])
    losses = [open_second_level_fold(workspace, recipe, fold).run_epoch().val_weighted_log_loss for fold in (0, 2)]

    assert (first["fold"], second["fold"]) == (0, 2)
    assert first[METRIC] == losses[0]
    assert second[METRIC] == pytest.approx(np.mean(losses))


def test_the_checkpoint_of_a_trial_serves_its_fold(config: Any, workspace: Workspace, tmp_path: Path) -> None:
    asked = config("served")
    results = results_of(FoldTrial(asked))
    (stage,) = plan_of(asked).stages
    run = open_second_level_fold(workspace, SecondLevelRecipe.from_dict(asked["recipe"]), 0)
    run.load(checkpoint_path(tmp_path / "served", stage, 0))

    assert stage.is_whole
    assert run.finished
    assert [epoch.val_weighted_log_loss for epoch in run.history] == [one[METRIC] for one in results]


def test_a_trial_at_a_url_fetches_predictions_and_no_pixels(
    config: Any, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICHTUNE_MIRROR", str(tmp_path / "mirror"))
    mirror.node_workspace.cache_clear()
    url = f"file://{workspace.layout.root}"
    weights = workspace.layout.runs / workspace.run_ids()[0] / "fold_0" / "weights.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"large")
    here = results_of(FoldTrial(config("here")))
    there = results_of(FoldTrial({**config("x"), "work": url, "folder": "searches/s/trials/0000"}))

    root = mirror.mirror_root(url)
    assert there == here
    assert sorted(path.name for path in (root / "runs" / workspace.run_ids()[0]).glob("*.parquet")) == [
        "oof.parquet",
        "test.parquet",
    ]
    assert not list(root.rglob("*.b2"))
    assert not list(root.rglob("weights.safetensors"))
    assert (workspace.layout.searches / "s/trials/0000/checkpoint_fold_0.safetensors").is_file()


def test_a_space_at_a_url_finds_the_runs_there(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICHTUNE_MIRROR", str(tmp_path / "mirror"))
    opened = mirror.open_workspace(f"file://{workspace.layout.root}")
    space = space_of(tmp_path)
    check_space(opened, space)
    mirror.fetch_pixels(opened, inputs_of(space))

    assert identity_of(opened, settled(opened, space)) == identity_of(workspace, settled(workspace, space))
    assert not list((tmp_path / "mirror").rglob("*.b2"))


def test_a_trial_that_asked_for_no_gpu_computes_on_none(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray hides no GPU from it, and a device ``meta`` computes nothing."""
    monkeypatch.setattr("ichtune.second_level.sequences.best_device", lambda: torch.device("meta"))
    recipe = SecondLevelRecipe(**GRU, members=tuple(workspace.run_ids()))
    run = search_level(2).open_run(workspace, Stage(recipe, 0), torch.device("cpu"))
    run.run_epoch()
    path = workspace.layout.root / "resume.safetensors"
    run.save(path)
    again = search_level(2).open_run(workspace, Stage(recipe, 0), torch.device("cpu"))
    again.load(path)

    assert again.run_epoch().val_weighted_log_loss == run.run_epoch().val_weighted_log_loss
    assert search_level(2).epoch_s(workspace, recipe, 0) > 0  # a dry run times what trials do


def test_an_epoch_is_timed_on_few_slices(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def timed_s(inputs: Any, recipe: SecondLevelRecipe, n: int) -> float:
        sizes.append(n)
        return 1.0 + 0.01 * n

    monkeypatch.setattr("ichtune.search.second_level._timed_s", timed_s)
    monkeypatch.setattr("ichtune.search.second_level.TIMED_SLICES", (10, 30))
    recipe = SecondLevelRecipe(**GRU, members=tuple(workspace.run_ids()))
    n_slices = len(workspace.labelled)

    assert search_level(2).epoch_s(workspace, recipe, 0) == pytest.approx(1.0 + 0.01 * n_slices)
    assert sizes == [1, 10, 30]
    monkeypatch.setattr("ichtune.search.second_level.TIMED_SLICES", (n_slices, 2 * n_slices))
    assert search_level(2).epoch_s(workspace, recipe, 0) == pytest.approx(1.0 + 0.01 * n_slices)


def test_a_dry_run_tells_what_a_second_level_costs(workspace: Workspace, tmp_path: Path) -> None:
    dry = describe_search(workspace, space_of(tmp_path), 2, "1 CPU")

    assert {sample.proposal.recipe.n_epochs for sample in dry.samples} == {1, 3}
    assert dry.rungs == (1, 2)
    assert dry.n_trials == 3  # gaussian, and gru twice
    assert "an epoch on few slices of" in dry.how
    assert all(0 < sample.seconds_per_epoch < 600 for sample in dry.samples)
    members = {sample.proposal.recipe.members for sample in dry.samples}
    assert members == {tuple(workspace.run_ids())}
    ledger = Ledger(ledger_path(workspace.layout, "first"))
    ledger.open({"folds": [0]})
    ledger.start(TrialRecord(0, {}, {}, replace(space_of(tmp_path), level=1, base=None).default))
    ledger.epoch(0, {"epoch": 1, "val_weighted_log_loss": 0.3, "seconds": 5000.0})
    again = describe_search(workspace, space_of(tmp_path), 2, "1 CPU")
    assert "an epoch on few slices of" in again.how  # what networks took tells nothing


def test_the_models_are_the_kinds_that_are_timed() -> None:
    level = search_level(2)
    assert level.unlike(SecondLevelRecipe(hidden=8)) == level.unlike(SecondLevelRecipe(hidden=16))
    assert level.unlike(SecondLevelRecipe(model="lstm")) != level.unlike(SecondLevelRecipe())
    network: Any = plan_of({"recipe": {}, "folds": [0], "early_stop": {}, "rungs": []}).stages[0]
    with pytest.raises(TypeError, match="none of the second level"):
        level.open_run(Workspace("."), network, torch.device("cpu"))


def test_digests_do_not_depend_on_pandas_index(workspace: Workspace, tmp_path: Path) -> None:
    from ichtune.search.second_level import _digest

    recipe_id = workspace.run_ids()[0]
    before = _digest(workspace, recipe_id)
    table = read_table(workspace.layout.oof(recipe_id), PREDICTIONS)
    write_table(pd.concat([table.iloc[5:], table.iloc[:5]]), workspace.layout.oof(recipe_id), PREDICTIONS)
    assert _digest(workspace, recipe_id) == before
