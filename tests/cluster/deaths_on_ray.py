"""A worker that dies while a trial is handed on to it costs no trial. Trials are looked up, not trained."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from ichtune.search.cluster import ray_session
from ichtune.search.deaths import MAX_FAILURES
from ichtune.search.ledger import FAILED, FINISHED, Ledger
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
search: {algorithm: random, trials: 4, seed: 7, early_stop: {type: none}}
train: {top: 1}
parameters:
  architecture: tiny_convnet
  lr: {low: 1e-4, high: 1e-2, log: true}
  epochs: 2
"""


class Mortal(tune.Trainable):
    """Dies while it takes over trial 1, once, and whenever it begins or takes over trial 2."""

    def setup(self, config: dict[str, Any]) -> None:
        self._told, self._epoch = config, config["told"]
        if config["trial"] == 2:
            self._die()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        has_died = Path(new_config["work"]) / "has_died"
        if new_config["trial"] == 1 and not has_died.exists():
            has_died.touch()
            self._die()
        self.setup(new_config)
        return True

    def _die(self) -> None:
        with (Path(self._told["work"]) / "deaths").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    def step(self) -> dict[str, Any]:
        self._epoch += 1
        return {
            TIME_ATTR: self._epoch,
            METRIC: 1.0 / self._epoch,
            "fold": 0,
            "train_loss": 1.0,
            "lr": 1e-3,
            "seconds": 1.0,
            "images_per_second": 1.0,
            "cost": 1.0,
            "failure": "",
            "done": self._epoch >= self._told["epochs"],
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        pass

    def load_checkpoint(self, checkpoint: Any) -> None:
        pass


def test_a_trial_survives_the_worker_that_it_is_handed_on_to_but_not_its_third(tmp_path: Path) -> None:
    path = tmp_path / "mortal.yaml"
    path.write_text(SPACE)
    space, workspace = read_space(path), Workspace(tmp_path / "work")
    workspace.layout.root.mkdir()
    ledger = Ledger(ledger_path(workspace.layout, "mortal"))
    ledger.open({"space_id": space.space_id})
    legs = Legs(space, ledger, create_scheduler(space.search.early_stop), Budget(4))
    run = TuneRun(workspace, space, SearchOptions(concurrent=1), legs, Mortal)

    with ray_session(None, tmp_path / "token", dashboard=False):
        run_legs(run, lambda event: None)

    records = ledger.records()
    assert [record.status for record in records] == [FINISHED, FINISHED, FAILED, FINISHED]
    assert "its worker died 3 times with no epoch in between" in records[2].reason
    assert len((workspace.layout.root / "deaths").read_text()) == 1 + MAX_FAILURES + 1
    assert ledger.path.read_text().count('"event": "epoch"') == 3 * 2
