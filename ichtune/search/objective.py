"""FoldTrial: one recipe trained on one fold, as the class that Ray Tune runs in an actor of its own.

After every epoch the trial's whole state lies in the workspace. A trial that is started again first tells the epochs it
has had, so that the scheduler sees one curve, and then trains on from there.
"""

import math
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from ichtune.errors import ConfigError, ConflictError, DataError, NothingUsableError
from ichtune.recipe import Recipe
from ichtune.search.names import METRIC, TIME_ATTR

#: What ends one trial but not the search. A full disk or a dead process is not among them: Ray tries those again.
TRIAL_ERRORS = (
    ConfigError,
    ConflictError,
    DataError,
    NothingUsableError,
    RuntimeError,
    ValueError,
    TypeError,
    MemoryError,
)


class FoldTrial(tune.Trainable):
    """Trains ``config["recipe"]`` without each of ``config["folds"]`` in turn; a ``step`` is one epoch of all of them.

    The configuration holds ``work`` (workspace path), ``folder`` (of this trial), ``trial`` (number), ``folds``,
    ``recipe``, ``n_threads`` and ``wants_gpu``.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Open the workspace and take up what an earlier attempt left."""
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial in the same process, which has paid for its imports already."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._folder = Path(config["folder"])
        self._name = f"trial_{config['trial']:04d}|{Recipe.from_dict(config['recipe']).summary}"
        self._runs: dict[int, Any] = {}
        self._epoch = 0
        self._failure = ""
        try:
            self._open(config)
        except TRIAL_ERRORS as error:
            self._failed(error)

    def _open(self, config: dict[str, Any]) -> None:
        import torch

        from ichtune.training.devices import device_for
        from ichtune.training.fold_run import open_fold
        from ichtune.workspace import Workspace

        torch.set_num_threads(int(config["n_threads"]))
        workspace = Workspace(config["work"])
        recipe = Recipe.from_dict(config["recipe"])
        for fold in config["folds"]:
            run = open_fold(workspace, recipe, int(fold), device_for(config["wants_gpu"])).run
            if self._checkpoint(fold).is_file():
                run.load(self._checkpoint(fold))
            self._runs[fold] = run

    def _checkpoint(self, fold: int) -> Path:
        return self._folder / f"checkpoint_fold_{fold}.safetensors"

    def step(self) -> dict[str, Any]:
        """Return the next epoch's result: from the checkpoint where it is known already, else by training it."""
        if self._failure:
            return {TIME_ATTR: self._epoch, METRIC: math.nan, "failure": self._failure, "done": True}
        self._epoch += 1
        try:
            for fold, run in self._runs.items():
                if run.epoch < self._epoch:
                    run.run_epoch()
                    run.save(self._checkpoint(fold))
        except TRIAL_ERRORS as error:
            self._failed(error)
            return self.step()
        return self._result()

    def _result(self) -> dict[str, Any]:
        """Put the folds' results of this epoch together: means of what is a mean, sums of what is spent."""
        epochs = [asdict(run.history[self._epoch - 1]) for run in self._runs.values()]
        result = {key: sum(epoch[key] for epoch in epochs) / len(epochs) for key in epochs[0]}
        result[TIME_ATTR] = self._epoch
        result["seconds"] = sum(epoch["seconds"] for epoch in epochs)
        if not math.isfinite(result[METRIC]):
            self._failure = f"diverged: the validation loss of epoch {self._epoch} is {result[METRIC]}"
        finished = all(run.recipe.epochs <= self._epoch for run in self._runs.values())
        return {**result, "failure": self._failure, "done": finished or bool(self._failure)}

    def _failed(self, error: BaseException) -> None:
        path = self._folder / "error.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        first = str(error).splitlines()[0] if str(error) else ""
        self._failure = f"{type(error).__name__}: {first} (traceback in {path})"

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to hand to Ray: every epoch is in the workspace already."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to take from Ray: ``setup`` read the workspace."""

    def __repr__(self) -> str:
        return getattr(self, "_name", "FoldTrial")
