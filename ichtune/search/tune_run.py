"""One run of Ray Tune over the legs of a search."""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ray import tune

from ichtune.search.deaths import MAX_FAILURES, keeper_of
from ichtune.search.growth import Room, Waiting
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

#: Trials at a time on a cluster that can grow, where nobody says how many.
MOST_AT_ONCE = 1000
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
        note: says one line to the person watching, such as that a node is waited for.
        begun_s: when the run began, on the monotonic clock; its time counts from here on.
        grows: whether Ray starts nodes when trials ask for them.
        halted: what stopped the run that no other trial would survive, empty if nothing.
    """

    workspace: Workspace
    space: Space
    options: "SearchOptions"
    legs: Legs
    trainable: type[tune.Trainable] = FoldTrial
    note: Callable[[str], None] = lambda line: None
    begun_s: float = field(default_factory=time.monotonic)
    grows: bool = False
    halted: str = ""

    @property
    def ends_s(self) -> float:
        """When its time is up, on the monotonic clock; infinity without a limit."""
        return self.begun_s + (self.options.over(self.space.search).time_s or math.inf)

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
    """Ends the run when its time is up, or when a trial, or the ledger, met what no other trial would survive."""

    def __init__(self, ledger: Ledger, ends_s: float) -> None:
        self.reason = ""
        self._ledger: Ledger | None = ledger
        self._ends_s = ends_s

    def __getstate__(self) -> dict[str, Any]:
        return {"reason": self.reason, "_ledger": None, "_ends_s": math.inf}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.reason = self.reason or result.get("halt", "")
        return False

    def stop_all(self) -> bool:
        if self.reason or (self._ledger is not None and self._ledger.failure is not None):
            return True
        return time.monotonic() >= self._ends_s


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
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # what a worker died of is kept with its trial
    ledger, packer = run.legs.ledger, _packer(run)
    halt = _Halt(ledger, run.ends_s)
    if halt.stop_all():  # starting Ray and measuring took all of the time
        return
    try:
        _tuner(run, packer, halt, on_event).fit()
    except Exception as error:
        if ledger.failure is None:
            raise
        raise ledger.failure from error
    finally:
        run.halted = halt.reason
    if ledger.failure is not None:
        raise ledger.failure


def _packer(run: TuneRun) -> Packer:
    space, folder = run.space, run.legs.ledger.path.parent
    packer = Packer(
        run.workspace,
        space.resources,
        folder,
        sampled_recipes(space) if space.resources.auto else [],
        space.folds.search_on[0],
        run.options.stage,
        grows=run.grows,
        note=run.note,
        ends_s=run.ends_s,
    )
    for line in packer.notes:
        logging.getLogger(__name__).warning(line)
    return packer


def _tuner(run: TuneRun, packer: Packer, halt: _Halt, on_event: OnEvent) -> tune.Tuner:
    ledger, keeper = run.legs.ledger, Bookkeeper(run.legs.ledger)
    # on a cluster that grows, what fits is looked at anew each time
    at_once = run.options.over(run.space.search).concurrent or (MOST_AT_ONCE if run.grows else packer.n_concurrent)
    room = Room(packer.n_that_fit) if run.grows else None
    watching = [Waiting(run.note, packer.n_that_fit)] if run.grows else []
    return tune.Tuner(
        tune.with_resources(run.trainable, lambda config: config["resources"]),
        tune_config=tune.TuneConfig(
            search_alg=LegSearcher(run.legs, lambda record: run.config_of(record, packer), on_event, room),
            scheduler=RungScheduler(run.legs, keeper),
            num_samples=-1,
            max_concurrent_trials=at_once,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(ledger.path.parent.resolve()),
            verbose=0,
            stop=halt,
            callbacks=[LedgerCallback(ledger, keeper, on_event, keeper_of(run.workspace)), *watching],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )


def _trial_name(trial: Any) -> str:
    told = trial.config["told"]
    return f"trial_{trial.config['trial']:04d}" + (f"_from_epoch_{told + 1}" if told else "")
