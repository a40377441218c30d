"""A dry run: what the scheduler makes of a search, what its recipes cost, and that nothing is trained for it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ichtune.recipe import Recipe
from ichtune.search.dry_run import DryRun, describe_search, text_of_s
from ichtune.search.ledger import FINISHED, Ledger, TrialRecord
from ichtune.search.playing import Amount
from ichtune.search.trial_table import ledger_path
from ichtune.space import Resources, Space, read_space
from ichtune.workspace import Workspace

PARAMETERS = """
parameters:
  architecture: tiny_convnet
  image_px: 32
  lr: {low: 1e-4, high: 1e-2, log: true}
  batch_size: [4, 8]
  epochs: 9
"""


def space_of(tmp_path: Path, search: str, more: str = "", parameters: str = PARAMETERS) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(f"search: {search}\n{more}{parameters}")
    return read_space(path)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Let every epoch take 10 s, and remember whose was timed."""
    recipes: list[Recipe] = []

    def epoch_s(workspace: Workspace, recipe: Recipe, space: Space) -> float:
        recipes.append(recipe)
        return 10.0

    monkeypatch.setattr("ichtune.search.dry_run._epoch_s", epoch_s)
    return recipes


def described(workspace: Workspace, space: Space, n_trials: int = 9, n_concurrent: int = 2, **more: Any) -> DryRun:
    asked = replace(space, search=replace(space.search, trials=n_trials))
    return describe_search(workspace, asked, n_concurrent, "0.5 GPU, 1 CPU", **more)


ONE = "train: {top: 1}\n"


def test_without_a_scheduler_every_trial_is_trained_to_its_end(
    tmp_path: Path, session_workspace: Workspace, timed: list[Recipe]
) -> None:
    dry = described(session_workspace, space_of(tmp_path, "{early_stop: none}"))

    assert dry.epochs == Amount(81, 81, 81)
    assert dry.n_epochs_whole == 81
    assert dry.rungs == ()
    assert dry.hours.expected == pytest.approx(81 * 10 / 3600, rel=0.1)  # those that were not timed are inferred
    assert dry.clock_hours == dry.hours.divided(2)


@pytest.mark.parametrize(
    ("judge", "least", "most"),
    [
        # 9 trials reach epoch 1, 3 of them epoch 3, 1 its end; if each is better than all before it, 7 and 5
        ("judge: last", 9 * 1 + 3 * 2 + 1 * 6, 9 * 1 + 7 * 2 + 5 * 6),
        ("judge: cooldown, cooldown: 0.5", 9 * 1.5 + 3 * 2.5 + 1 * 6, 9 * 1.5 + 7 * 2.5 + 5 * 6),
        # short schedules of 1 and 3 epochs, and the whole one
        ("judge: short", 9 * 1 + 3 * 3 + 1 * 9, 9 * 1 + 7 * 3 + 5 * 9),
    ],
)
def test_rungs_and_their_branches_are_counted(
    tmp_path: Path, session_workspace: Workspace, timed: list[Recipe], judge: str, least: float, most: float
) -> None:
    search = f"{{early_stop: {{type: asha, grace: 1, factor: 3, {judge}}}}}"
    dry = described(session_workspace, space_of(tmp_path, search, ONE))

    assert dry.rungs == (1, 3)
    assert dry.epochs.at_least == least
    assert dry.epochs.at_most == most
    assert least <= dry.epochs.expected <= most
    assert dry.n_epochs_whole == 81


def test_the_best_of_the_stopped_are_trained_to_their_end(
    tmp_path: Path, session_workspace: Workspace, timed: list[Recipe]
) -> None:
    search = "{early_stop: {type: asha, grace: 3, factor: 9, judge: last}}"
    dry = described(session_workspace, space_of(tmp_path, search, "train: {top: 2}\n"), n_trials=4)

    assert dry.epochs.at_least == 4 * 3 + 2 * 6


def test_further_folds_cost_for_those_that_start_them(
    tmp_path: Path, session_workspace: Workspace, timed: list[Recipe]
) -> None:
    both = "folds: {search_on: [0, 1]}\n" + ONE
    none = described(session_workspace, space_of(tmp_path, "{early_stop: none}", both))
    search = "{early_stop: {type: asha, grace: 9, factor: 3}}"
    asha = described(session_workspace, space_of(tmp_path, search, both))

    assert none.epochs.expected == none.n_epochs_whole == 2 * 81
    assert asha.epochs.at_least == 81 + 3 * 9


def test_a_large_search_is_scaled_from_a_smaller_one(
    tmp_path: Path, session_workspace: Workspace, timed: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    search = "{early_stop: {type: asha, grace: 1, factor: 3, judge: last}}"
    monkeypatch.setattr("ichtune.search.dry_run.MAX_PLAYED", 9)
    dry = described(session_workspace, space_of(tmp_path, search, ONE), n_trials=900)

    assert dry.epochs.at_least == pytest.approx(100 * (9 * 1 + 3 * 2 + 1 * 6))


def test_a_search_has_no_more_trials_than_its_space_has_recipes(
    tmp_path: Path, session_workspace: Workspace, timed: list[Recipe]
) -> None:
    parameters = PARAMETERS.replace("{low: 1e-4, high: 1e-2, log: true}", "[1e-3, 1e-2]")
    constraint = "constraints: [{batch_size: 4, when: {lr: 1e-2}}]\n"
    dry = described(session_workspace, space_of(tmp_path, "{}", constraint, parameters))

    assert (dry.n_trials, len(dry.samples), dry.size.text) == (3, 3, "3 configurations")
    assert dry.to_dict()["size"] == {"n": 3, "is_exact": True, "text": "3 configurations"}
    assert (1e-2, 8) not in {(s.proposal.recipe.lr, s.proposal.recipe.batch_size) for s in dry.samples}


def test_at_most_three_recipes_are_timed_and_these_differ(
    tmp_path: Path, session_workspace: Workspace, timed: list[Recipe]
) -> None:
    parameters = PARAMETERS.replace("image_px: 32", "image_px: [16, 32]")
    dry = described(session_workspace, space_of(tmp_path, "{seed: 3}", "", parameters), n_samples=6)

    assert len(dry.samples) == 6
    assert len(timed) == 3
    assert {recipe.image_px for recipe in timed[:2]} == {16, 32}
    assert "a few timed steps of 3 of them" in dry.how
    assert described(session_workspace, dry.space, n_samples=6).samples == dry.samples


def test_earlier_trials_tell_what_an_epoch_takes(fake_workspace: Any, tmp_path: Path, timed: list[Recipe]) -> None:
    workspace = fake_workspace()
    space = space_of(tmp_path, "{}")
    ledger = Ledger(ledger_path(workspace.layout, "earlier"))
    ledger.open({"space_id": "x"})
    ledger.start(TrialRecord(0, {}, {}, Recipe(architecture="tiny_convnet", image_px=32, epochs=2, batch_size=4)))
    for epoch in (1, 2):
        ledger.epoch(0, {"epoch": epoch, "fold": 0, "val_weighted_log_loss": 0.2, "seconds": 7.0})
    ledger.end(0, FINISHED)

    dry = described(workspace, space)

    assert timed == []
    assert "learnt from 1 recipe that was trained in this workspace" in dry.how
    of_fours = [sample for sample in dry.samples if sample.proposal.recipe.batch_size == 4]
    assert of_fours[0].seconds_per_epoch == pytest.approx(7.0)


def test_an_epoch_is_timed_by_a_few_steps(
    tmp_path: Path, session_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ichtune.search.first_level.MOST_STEPS", 2)
    threads = torch.get_num_threads()
    space = space_of(tmp_path, "{early_stop: asha}", "resources: {cpu: 1}\n")

    dry = described(session_workspace, space, n_samples=1)

    assert 0 < dry.samples[0].seconds_per_epoch < 600
    assert torch.get_num_threads() == threads
    assert not session_workspace.layout.searches.exists()


def test_it_is_told_in_lines_and_as_plain_values(
    tmp_path: Path, session_workspace: Workspace, timed: list[Recipe]
) -> None:
    search = "{early_stop: {type: asha, factor: 3}, time: 60s, until_no_gain: 5, gpu_hours: 2}"
    dry = described(session_workspace, space_of(tmp_path, search), n_samples=2)
    told, text = json.loads(json.dumps(dry.to_dict())), "\n".join(dry.lines())

    assert told["size"] == {"n": None, "is_exact": True, "text": "a continuous space"}
    assert told["early_stop"]["rungs"] == [1, 3]
    assert [sample["recipe_id"] for sample in told["samples"]] == [s.proposal.recipe.recipe_id for s in dry.samples]
    assert told["epochs"]["at_least"] <= told["epochs"]["expected"] <= told["epochs"]["at_most"]
    for part in (
        "space space: a continuous space, 2 of 5 parameters searched",
        "9 trials, 2 at a time; each asks Ray for 0.5 GPU, 1 CPU",
        "early stop: asha at epochs 1, 3, judged by their losses as they are",
        dry.samples[1].proposal.recipe.recipe_id,
        "batch_size",
        "a run ends after 0.017 h, before all that",
        "5 trials in a row without a better loss",
        "the 2 GPU hours end nothing here, where no trial gets a GPU",
        "the best stopped trials are trained on in the end, until 3 have finished",
    ):
        assert part in text
    assert told["limits"] == {"time_s": 60.0, "gpu_hours": 2.0, "until_no_gain": 5}
    assert "early stop: none, no rungs" in "\n".join(described(session_workspace, space_of(tmp_path, "{}")).lines())


def test_gpu_hours_count_where_trials_get_a_gpu(
    tmp_path: Path, session_workspace: Workspace, timed: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    dry = described(session_workspace, space_of(tmp_path, "{gpu_hours: 2}"), n_samples=2)
    monkeypatch.setattr("ichtune.search.dry_run.best_device", lambda: torch.device("cuda"))

    assert "it ends sooner after 2 GPU hours" in dry.lines()
    on_cores = replace(dry.space, resources=Resources(gpu=0))
    assert "it ends sooner after 2 GPU hours" not in replace(dry, space=on_cores).lines()


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("", " at epochs 1, 3, judged by their losses as they are"),
        (", judge: cooldown", " at epochs 1, 3, judged by a cooldown of 0.5 epochs"),
        (", judge: average", " at epochs 1, 3, judged by the mean of the weights"),
        (", judge: short", ", judged after complete runs of 1, 3 epochs"),
        (", fidelity: patients", ", judged after complete runs on a share of the patients that cost about 1, 3 epochs"),
        (", fidelity: image_px", ", judged after complete runs on smaller images that cost about 1, 3 epochs"),
    ],
)
def test_rungs_are_said_to_be_what_they_are(
    tmp_path: Path, session_workspace: Workspace, timed: list[Recipe], how: str, told: str
) -> None:
    parameters = PARAMETERS.replace("image_px: 32", "image_px: 128")
    space = space_of(tmp_path, f"{{early_stop: {{type: asha, factor: 3{how}}}}}", "", parameters)

    assert f"early stop: asha{told}" in described(session_workspace, space, n_samples=2).lines()


def test_rungs_that_no_recipe_has_are_none(tmp_path: Path, session_workspace: Workspace, timed: list[Recipe]) -> None:
    """Images of 32 px cannot get smaller."""
    dry = described(session_workspace, space_of(tmp_path, "{early_stop: {type: asha, fidelity: image_px}}", ONE))

    assert dry.rungs == ()
    assert dry.epochs == Amount(81, 81, 81)
    assert "early stop: asha, no rungs" in dry.lines()


@pytest.mark.parametrize(("seconds", "text"), [(0.84, "0.8 s"), (34.4, "34 s"), (150, "2.5 min"), (7200, "120 min")])
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert text_of_s(seconds) == text
