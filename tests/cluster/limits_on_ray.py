"""Where a search stops by itself Ray Tune stops too, and the next run goes on. Trials are looked up, not trained."""

import math
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from ichtune.search.cluster import ray_session
from ichtune.search.ledger import FINISHED, INTERRUPTED, STOPPED, Ledger, TrialRecord
from ichtune.search.legs import Budget, Legs
from ichtune.search.names import METRIC, TIME_ATTR
from ichtune.search.schedulers import create_scheduler
from ichtune.search.study import SearchOptions
from ichtune.search.trial_table import ledger_path
from ichtune.search.tune_run import TuneRun, run_legs
from ichtune.space import read_space
from ichtune.workspace import Workspace

pytestmark = pytest.mark.slow

SPACE = """
version: 1
search: {algorithm: random, trials: 6, seed: 7, early_stop: {type: asha, grace: 1, max: 9, factor: 3}}
train: {top: 2}
parameters:
  architecture: tiny_convnet
  lr: {low: 1e-4, high: 1e-2, log: true}
  epochs: 9
"""


class LookedUp(tune.Trainable):
    """A trial of which an epoch takes a GPU for six minutes, on paper; trial 2 meets a full disk while there is one."""

    def setup(self, config: dict[str, Any]) -> None:
        self._told, self._epoch = config, config["told"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        self._epoch += 1
        if self._told["trial"] == 2 and (Path(self._told["work"]) / "disk_is_full").exists():
            return {TIME_ATTR: self._epoch, METRIC: math.nan, "failure": "", "halt": "the disk is full", "done": True}
        result = {
            TIME_ATTR: self._epoch,
            METRIC: 1.0 / self._epoch,
            "fold": 0,
            "train_loss": 1.0,
            "lr": 1e-3,
            "seconds": 360.0,
            "images_per_second": 1.0,
            "cost": 1.0,
            "gpu": 1.0,
            "failure": "",
            "done": self._epoch >= self._told["epochs"],
        }
        is_judged = str(self._epoch) in self._told["rung_epochs"] and not self._told["to_end"]
        return result | ({"rung": self._epoch, "rung_loss": self._told["parameters"]["lr"]} if is_judged else {})

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        pass

    def load_checkpoint(self, checkpoint: Any) -> None:
        pass


def test_a_full_disk_and_spent_gpu_hours_stop_ray_tune_and_the_next_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "looked_up.yaml"
    path.write_text(SPACE)
    space, workspace = read_space(path), Workspace(tmp_path / "work")
    workspace.layout.root.mkdir()
    full = workspace.layout.root / "disk_is_full"
    full.touch()

    def search(budget: Budget) -> tuple[TuneRun, list[TrialRecord]]:
        ledger = Ledger(ledger_path(workspace.layout, "looked_up"))
        ledger.open({"space_id": space.space_id})
        legs = Legs(space, ledger, create_scheduler(space.search.early_stop), budget)
        run = TuneRun(workspace, space, SearchOptions(concurrent=1), legs, LookedUp)
        run_legs(run, lambda event: None)
        return run, ledger.records()

    with ray_session(None, tmp_path / "token", dashboard=False):
        halted, at_full_disk = search(Budget(6))
        full.unlink()
        limited, at_limit = search(Budget(6, gpu_hours=0.8))
        spent, later = search(Budget(6, gpu_hours=0.8))
        complete, in_the_end = search(Budget(6))

    assert halted.halted == "the disk is full"
    assert [(r.status, len(r.curve)) for r in at_full_disk] == [(STOPPED, 1), (STOPPED, 1), (INTERRUPTED, 0)]
    assert limited.legs.why_done == spent.legs.why_done == "0.8 GPU hours are spent"
    assert sum(len(r.curve) for r in at_limit) == 8
    assert [r.curve for r in later] == [r.curve for r in at_limit], "it trained on although its hours were spent"
    assert complete.legs.why_done == "6 trials were proposed"
    assert sorted(r.status for r in in_the_end) == [FINISHED] * 2 + [STOPPED] * 4
    events = complete.legs.ledger.path.read_text().count('"event": "epoch"')
    assert events == sum(len(r.curve) for r in in_the_end), "an epoch was told twice"
