"""One run of Ray Tune over the legs of a search."""

import logging
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ray import tune

from ichtune.search.ledger import Ledger, TrialRecord
from ichtune.search.legs import Legs
from ichtune.search.objective import FoldTrial
from ichtune.search.packer import Packer, sampled_recipes
from ichtune.search.stages import plan_trial
from ichtune.search.telemetry import OnEvent
from ichtune.search.trial_table import trial_folder
from ichtune.search.tune_adapters import Bookkeeper, LedgerCallback, LegSearcher, RungScheduler
from ichtune.space import Space
from ichtune.workspace import Workspace

if TYPE_CHECKING:
    from ichtune.search.study import SearchOptions

#: Times that a trial whose worker died is taken up again, each time from its last whole epoch.
MAX_FAILURES = 2
#: Seconds between two saves of Tune's own state, which nothing here reads.
TUNE_STATE_S = "3600"


@dataclass
class TuneRun:
    """What a run needs.

    Attributes:
        workspace: prepared data.
        space: what is searched.
        options: budget and place.
        legs: decides what runs.
        trainable: what an actor runs; benchmarks look trials up instead of training them.
        halted: what stopped the run that no other trial would survive, empty if nothing.
    """

    workspace: Workspace
    space: Space
    options: "SearchOptions"
    legs: Legs
    trainable: type[tune.Trainable] = FoldTrial
    halted: str = ""

    def config_of(self, record: TrialRecord, packer: Packer) -> dict[str, Any]:
        """Return what an actor receives to run the next leg of a trial."""
        early_stop, folds = self.space.search.early_stop, list(self.space.folds.search_on)
        rungs = list(self.legs.scheduler.rungs(record.trial))
        plan = plan_trial(record.recipe, folds, early_stop, rungs)
        root, origin = self.workspace.layout.root, self.workspace.origin
        folder = trial_folder(self.workspace.layout, self.legs.ledger.path.parent.name, record.trial)
        return {
            "work": origin or str(root.resolve()),
            "stage": self.options.stage,
            "folder": str(folder.relative_to(root) if origin else folder.resolve()),
            "trial": record.trial,
            "folds": folds,
            "recipe": record.recipe.to_dict(),
            "summary": record.recipe.summary,
            "parameters": record.parameters,
            "early_stop": asdict(early_stop),
            "rungs": rungs,
            "rung_epochs": {str(rung): epoch for rung, epoch in plan.rung_epochs.items()},
            "epochs": plan.n_epochs,
            "told": len(record.curve),
            "to_end": record.to_end,
            **packer.request(record.recipe),
        }


class _Halt(tune.Stopper):
    """Ends the run when a trial, or the ledger, met what no other trial would survive."""

    def __init__(self, ledger: Ledger) -> None:
        self.reason = ""
        self._ledger: Ledger | None = ledger

    def __getstate__(self) -> dict[str, Any]:
        return {"reason": self.reason, "_ledger": None}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.reason = self.reason or result.get("halt", "")
        return False

    def stop_all(self) -> bool:
        return bool(self.reason) or (self._ledger is not None and self._ledger.failure is not None)


def run_legs(run: TuneRun, on_event: OnEvent) -> None:
    """Run legs until none is left, the time is up or somebody interrupts.

    Args:
        run: what to do; its ``halted`` is set.
        on_event: told of every leg, epoch and end.

    Raises:
        StorageError: the ledger could not be written; nothing was decided after that.
    """
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", TUNE_STATE_S)
    settings, options, ledger = run.space.search, run.options, run.legs.ledger
    space, folder = run.space, ledger.path.parent
    recipes = sampled_recipes(space) if space.resources.auto else []
    packer = Packer(run.workspace, space.resources, folder, recipes, space.folds.search_on[0], options.stage)
    for line in packer.notes:
        logging.getLogger(__name__).warning(line)
    keeper, halt = Bookkeeper(ledger), _Halt(ledger)
    tuner = tune.Tuner(
        tune.with_resources(run.trainable, lambda config: config["resources"]),
        tune_config=tune.TuneConfig(
            search_alg=LegSearcher(run.legs, lambda record: run.config_of(record, packer), on_event),
            scheduler=RungScheduler(run.legs, keeper),
            num_samples=-1,
            max_concurrent_trials=options.concurrent or settings.concurrent or packer.n_concurrent,
            time_budget_s=options.time_s or settings.time_s,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(ledger.path.parent.resolve()),
            verbose=0,
            stop=halt,
            callbacks=[LedgerCallback(ledger, keeper, on_event)],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
    try:
        tuner.fit()
    except Exception as error:
        if ledger.failure is None:
            raise
        raise ledger.failure from error
    finally:
        run.halted = halt.reason
    if ledger.failure is not None:
        raise ledger.failure


def _trial_name(trial: Any) -> str:
    told = trial.config["told"]
    return f"trial_{trial.config['trial']:04d}" + (f"_from_epoch_{told + 1}" if told else "")
