import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ichtune.recipe import Recipe
from ichtune.search.ledger import FINISHED, Ledger, TrialRecord
from ichtune.search.legs import Budget, Legs
from ichtune.search.names import METRIC, TIME_ATTR
from ichtune.search.schedulers import create_scheduler
from ichtune.search.stages import plan_trial
from ichtune.search.telemetry import TrialEvent
from ichtune.space import Space, read_space
from ichtune.workspace import Workspace

SPACE = """
version: 1
search: {algorithm: tpe, trials: 12, seed: 7, early_stop: {type: asha, grace: 1, max: 9, factor: 3}}
parameters:
  architecture: tiny_convnet
  windows: [brain, subdural, brain_subdural_bone]
  lr: {low: 1e-4, high: 1e-2, log: true}
  epochs: 9
start_with:
  - {windows: subdural, lr: 3e-3}
"""


@pytest.fixture
def space(tmp_path: Path) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return read_space(path)


@pytest.fixture
def epoch() -> Callable[[int, float], dict[str, Any]]:
    def make(number: int, loss: float) -> dict[str, Any]:
        return {
            "epoch": number,
            "val_weighted_log_loss": loss,
            "train_loss": loss + 0.01,
            "lr": 1e-3,
            "seconds": 2.0,
            "images_per_second": 100.0,
        }

    return make


@pytest.fixture
def record(epoch: Callable[[int, float], dict[str, Any]]) -> Callable[..., TrialRecord]:
    """A trial that ended, as the ledger would tell it; its curve is the given losses.

    ``rungs`` gives what it was judged by, by the epoch that is also the rung's number.
    """

    def make(
        number: int,
        losses: list[float],
        status: str = FINISHED,
        lr: float = 1e-3,
        rungs: dict[int, float] | None = None,
        **recipe: Any,
    ) -> TrialRecord:
        told = {"params": {"lr": lr}, "distributions": {"lr": _LR}}
        chosen = Recipe(**{"architecture": "tiny_convnet", "lr": lr, "epochs": 9, **recipe})
        curve = [epoch(e, loss) for e, loss in enumerate(losses, start=1)]
        for rung, loss in (rungs or {}).items():
            curve[rung - 1] |= {"rung": rung, "rung_loss": loss}
        return TrialRecord(number, {"lr": lr}, told, chosen, status, "", curve)

    return make


_LR = '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.01, "log": true}}'


class FakeTune:
    """Ray Tune's part of a search, in this process: asks the adapters as Tune asks them, and looks losses up.

    A trial's loss falls from epoch to epoch, and a rung sees more of where it will end than the epoch's own loss does.

    Args:
        space: what is searched.
        path: of the ledger.
        budget: trials in all, or a whole budget.
        fails: whether a recipe fails.
        legs: more of what ``Legs`` takes.
    """

    def __init__(
        self,
        space: Space,
        path: Path,
        budget: int | Budget = 8,
        fails: Callable[[Recipe], bool] | None = None,
        **legs: Any,
    ) -> None:
        from ichtune.search.tune_adapters import Bookkeeper, LedgerCallback, LegSearcher, RungScheduler
        from ichtune.search.tune_run import TuneRun

        self.space, self.ledger = space, Ledger(path)
        self.fails = fails or (lambda recipe: False)
        self.ledger.open({"space_id": space.space_id, "folds": list(space.folds.search_on)})
        limits = budget if isinstance(budget, Budget) else Budget(budget)
        self.legs = Legs(space, self.ledger, create_scheduler(space.search.early_stop), limits, **legs)
        self.events: list[TrialEvent] = []
        self.trained: list[tuple[int, int]] = []
        options: Any = SimpleNamespace(stage=None)
        run = TuneRun(Workspace(path.parent), space, options, self.legs)
        packer: Any = SimpleNamespace(request=lambda recipe: {"resources": {"cpu": 1.0}})
        keeper = Bookkeeper(self.ledger)
        self.searcher = LegSearcher(self.legs, lambda record: run.config_of(record, packer), self.events.append)
        self.scheduler = RungScheduler(self.legs, keeper)
        self.callback = LedgerCallback(self.ledger, keeper, self.events.append)

    def run(self, concurrent: int = 1) -> list[TrialRecord]:
        """Run legs until there is none; each live one takes an epoch in turn."""
        live: list[Any] = []
        n_legs = 0
        while True:
            config: Any = None
            while len(live) < concurrent:
                config = self.searcher.suggest(f"leg_{n_legs}")
                if not isinstance(config, dict):
                    break
                live.append(
                    SimpleNamespace(
                        trial_id=f"leg_{n_legs}", config=config, epoch=config["told"], last_result={}, num_failures=0
                    )
                )
                n_legs += 1
            if not live:
                assert config == "FINISHED", "the search waits for trials that do not run"
                return self.ledger.records()
            trial = live.pop(0)
            if self._step(trial) != "STOP":
                live.append(trial)

    def _step(self, trial: Any) -> str:
        result = self._train(trial)
        decision = "STOP" if result["done"] else self.scheduler.on_trial_result(None, trial, result)
        self.callback.on_trial_result(0, [], trial, result)
        trial.last_result = result
        if decision == "STOP":
            self.searcher.on_trial_complete(trial.trial_id, result)
            self.callback.on_trial_complete(0, [], trial)
        return decision

    def _train(self, trial: Any) -> dict[str, Any]:
        config, recipe = trial.config, Recipe.from_dict(trial.config["recipe"])
        plan = plan_trial(recipe, config["folds"], self.space.search.early_stop, config["rungs"])
        trial.epoch += 1
        place = plan.place(trial.epoch)
        if self.fails(recipe):
            return {TIME_ATTR: trial.epoch, METRIC: math.nan, "failure": "broken", "done": True}
        self.trained.append((config["trial"], trial.epoch))
        loss = fake_loss(recipe, trial.epoch)
        result = {
            TIME_ATTR: trial.epoch,
            METRIC: loss,
            "fold": plan.stages[place.stage].fold,
            "train_loss": loss,
            "lr": recipe.lr,
            "seconds": 36.0,
            "images_per_second": 10.0,
            "cost": 1.0,
            "gpu": 0.5,
            "failure": "",
            "done": trial.epoch >= plan.n_epochs,
        }
        is_judged = place.rung is not None and (place.is_stage_end or not config["to_end"])
        return result | ({"rung": place.rung, "rung_loss": fake_loss(recipe, trial.epoch + 1)} if is_judged else {})


def fake_loss(recipe: Recipe, epoch: int) -> float:
    """A loss that depends on what was chosen, and falls."""
    end = 0.1 + 0.1 * abs(math.log10(recipe.lr) + 2.7) + 0.02 * len(recipe.windows)
    return end + 0.3 * (1.0 + 40 * recipe.lr) / epoch


@pytest.fixture
def fake_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeTune]:
    """Return a function that makes a ``FakeTune``; each has a ledger of its own unless a path is given."""
    monkeypatch.setattr("ichtune.search.ledger.os.fsync", lambda descriptor: None)  # 4 ms each

    def make(space: Space, path: Path | None = None, *settings: Any, **more: Any) -> FakeTune:
        n = len(list(tmp_path.glob("search_*")))
        return FakeTune(space, path or tmp_path / f"search_{n}" / "ledger.jsonl", *settings, **more)

    return make
