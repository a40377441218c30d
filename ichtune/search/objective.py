"""FoldTrial: one leg of a trial, as the class that Ray Tune runs in an actor of its own.

After every epoch the trial's whole state lies in the workspace. A leg that is started again goes on from there; epochs
that the checkpoint holds and the ledger does not are told, and not trained again.
"""

import json
import math
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ray import tune

from ichtune.errors import StorageError
from ichtune.search.levels import search_level_of
from ichtune.search.mirror import node_workspace
from ichtune.search.nameplate import name_logs, name_process
from ichtune.search.names import METRIC, TIME_ATTR
from ichtune.search.node_folder import NodeFolder
from ichtune.search.stages import Place, Stage, TrialPlan, plan_trial
from ichtune.second_level_recipe import recipe_from_dict
from ichtune.space import EarlyStop
from ichtune.tables import write_json

#: What the rungs and the folds of a trial came to, beside its checkpoints.
STATE_FILE = "judged.json"


def checkpoint_path(folder: Path, stage: Stage, number: int) -> Path:
    """Return the checkpoint of a stage of a trial; that of a whole run is known by its fold."""
    name = f"checkpoint_fold_{stage.fold}" if stage.is_whole else f"checkpoint_stage_{number}"
    return folder / f"{name}.safetensors"


def plan_of(config: dict[str, Any]) -> TrialPlan:
    """Return the stages of the trial of a configuration."""
    return plan_trial(
        recipe_from_dict(config["recipe"]), config["folds"], EarlyStop(**config["early_stop"]), config["rungs"]
    )


class FoldTrial(tune.Trainable):
    """Trains the stages of a trial from ``config["told"]`` epochs on; a ``step`` is one epoch.

    The configuration holds ``work`` (path or URL of the workspace), ``stage`` (folder for copies on this node's disk,
    or None), ``folder`` (of this trial, in the workspace), ``trial`` (number), ``folds``,
    ``recipe``, ``early_stop`` and ``rungs`` (which make the plan), ``told`` (epochs in the ledger), ``n_threads`` and
    ``wants_gpu``.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Open the workspace and take up what an earlier leg left."""
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another leg in the same process, which has paid for its imports already."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._config = config
        self._files = NodeFolder(config["work"], config["folder"], config.get("stage"))
        self._folder = self._files.path
        self._name = f"trial_{config['trial']:04d}|{config['summary']}"
        name_logs(self._name)
        self._plan = plan_of(config)
        self._epoch = int(config["told"])
        self._run: Any = None
        self._stage = -1
        self._failure = self._halt = ""
        self._state: dict[str, dict[str, Any]] = {"judged": {}, "folds": {}}
        self._attempt(self._open)

    def _attempt(self, work: Any) -> Any:
        """Do a piece of work; what it dies of is the trial's end at once, or the search's where the disk is full.

        A process that dies is another matter: Ray starts the trial again.
        """
        try:
            try:
                return work()
            except (StorageError, OSError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a recipe dies of, the search goes on without it
                self._failed(error)
        except (StorageError, OSError) as error:
            self._halt = str(error)
        return None

    def _open(self) -> None:
        import torch

        from ichtune.search.packing import pin_threads
        from ichtune.training.devices import device_for
        from ichtune.training.memory import hold_to_share

        config = self._config
        pin_threads(int(config["n_threads"]))
        self._device: torch.device = device_for(config["wants_gpu"])
        hold_to_share(self._device, config["resources"].get("gpu", 1.0), gpu_memory_mb=config["gpu_memory_mb"])
        recipes = [stage.recipe for stage in self._plan.stages]
        self._level = search_level_of(recipes[0])
        self._workspace = node_workspace(config["work"], config.get("stage"), self._level.pixels(recipes))
        self._files.fetch()
        path = self._folder / STATE_FILE
        if path.is_file():
            self._state |= json.loads(path.read_text(encoding="utf-8"))
        self._enter(self._plan.place(min(self._epoch + 1, self._plan.n_epochs)).stage)

    def _enter(self, number: int) -> None:
        """Open the run of a stage, and let it go on from its checkpoint if there is one."""
        stage = self._plan.stages[number]
        self._run = None  # two runs at once would take the memory of two
        self._run = self._level.open_run(self._workspace, stage, self._device)
        self._stage = number
        checkpoint = checkpoint_path(self._folder, stage, number)
        if checkpoint.is_file():
            self._run.load(checkpoint)

    def step(self) -> dict[str, Any]:
        """Return the next epoch's result: from the checkpoint where it is known already, else by training it."""
        name_process(self._name)
        if not (self._failure or self._halt):
            result = self._attempt(self._next_epoch)
            if result is not None:
                return dict(result)
        return {
            TIME_ATTR: self._epoch,
            METRIC: math.nan,
            "failure": self._failure,
            **({"halt": self._halt} if self._halt else {}),
            "done": True,
        }

    def _next_epoch(self) -> dict[str, Any]:
        place = self._place(self._epoch + 1)
        if place.stage != self._stage:
            self._enter(place.stage)
        self._epoch += 1
        stage, key = self._plan.stages[place.stage], str(self._epoch)
        while self._run.epoch < place.epoch - 1:  # its checkpoint is lost: what was told is trained once more
            self._run.run_epoch()
        if self._run.epoch >= place.epoch:
            return self._result(place, stage, self._state["judged"].get(key, {}))
        judged = self._train(place)
        result = self._result(place, stage, judged)
        if not self._failure:  # nobody goes on from a run that diverged
            if judged:
                self._state["judged"][key] = judged
                write_json(self._state, self._folder / STATE_FILE)
            self._run.save(checkpoint_path(self._folder, stage, place.stage))
            self._files.push()
        return result

    def _place(self, epoch: int) -> Place:
        """Return where an epoch lies; a trial that was promoted for good is judged no more within a run."""
        place = self._plan.place(epoch)
        return replace(place, rung=None) if self._config["to_end"] and not place.is_stage_end else place

    def _train(self, place: Place) -> dict[str, Any]:
        """Train an epoch and, at a rung, judge the run."""
        if place.rung is None or place.is_stage_end:
            result = self._run.run_epoch()
            if place.is_stage_end and self._plan.stages[place.stage].is_whole:
                self._state["folds"][str(place.stage)] = result.val_weighted_log_loss
                return {"loss": None, "epochs": 0.0, "seconds": 0.0}
            return {} if place.rung is None else {"loss": None, "epochs": 0.0, "seconds": 0.0}
        from ichtune.search.judges import find_judge

        return find_judge(self._config["early_stop"]["judge"])(self._run, self._config["early_stop"]["cooldown"])

    def _result(self, place: Place, stage: Stage, judged: dict[str, Any]) -> dict[str, Any]:
        """Put an epoch's result together; on a further fold the loss is the mean over the folds so far."""
        result = asdict(self._run.history[place.epoch - 1])
        if stage.is_whole:
            before = [loss for number, loss in self._state["folds"].items() if int(number) < place.stage]
            result[METRIC] = (sum(before) + result[METRIC]) / (len(before) + 1)
        result |= {TIME_ATTR: self._epoch, "fold": stage.fold, "cost": stage.cost * (1.0 + judged.get("epochs", 0.0))}
        result["seconds"] += judged.get("seconds", 0.0)
        judged_loss = judged.get("loss")
        loss = result[METRIC] if judged_loss is None else judged_loss
        if place.rung is not None:
            result |= {"rung": place.rung, "rung_loss": loss}
        if not (math.isfinite(result[METRIC]) and math.isfinite(loss)):
            self._failure = f"diverged: the validation loss of epoch {self._epoch} is {result[METRIC]}"
            self._failure += "" if judged_loss is None else f", and {judged_loss} as the rung judged it"
            result[METRIC] = math.nan
        result["gpu"] = self._config["resources"].get("gpu", 0.0)
        if self._device.type == "cuda":
            import torch

            result["gpu_memory_mb"] = torch.cuda.max_memory_allocated(self._device) / 2**20
        done = self._epoch >= self._plan.n_epochs or bool(self._failure)
        return {**result, "failure": self._failure, "done": done}

    def _failed(self, error: BaseException) -> None:
        path = self._folder / "error.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        self._files.push()
        first = str(error).splitlines()[0] if str(error) else ""
        self._failure = f"{type(error).__name__}: {first} (traceback in {self._files.place(path.name)})"

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to hand to Ray: every epoch is in the workspace already."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to take from Ray: ``setup`` read the workspace."""

    def __repr__(self) -> str:
        return getattr(self, "_name", "FoldTrial")
