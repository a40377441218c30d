"""One fold of a second-level recipe: a model of the other folds' slices, judged on this fold's.

Dimension key: R labelled slices, T unlabelled slices, F fold models of the first level, L labels.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ichtune.ensemble.blenders.equal_mean_logit import mean_of_logits
from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.labels import N_LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.second_level.base import SeriesModel
from ichtune.second_level.inputs import LevelInputs, load_inputs
from ichtune.second_level.models import create_series_model
from ichtune.second_level.state_file import load_state, part, save_state, with_prefix
from ichtune.second_level_recipe import SEQUENCES, TREES, SecondLevelRecipe
from ichtune.training.results import EpochResult
from ichtune.workspace import Workspace

if TYPE_CHECKING:
    import torch


class SecondLevelRun:
    """A model of the second level being trained on all folds but one and validated on that one.

    It never sees a label of the fold that is held out: whole patients lie in a fold. A run that is interrupted and
    taken up from its checkpoint ends with the same predictions as one that is not.

    Args:
        inputs: the slices as the members see them.
        fold: the fold that is held out.
        device: where a model that needs torch computes; the first GPU by default, or the CPU.

    Attributes:
        recipe: what is done, with its members named.
        history: results of the epochs that are done.
        notes: what a user should know of how the run was done.

    Raises:
        ConfigError: no such fold.
        DataError: no labelled slice to learn from, or none to be judged on.
    """

    def __init__(self, inputs: LevelInputs, fold: int, device: "torch.device | None" = None) -> None:
        is_held_out_R = inputs.fold_R == fold
        if not is_held_out_R.any() or is_held_out_R.all():
            known = ", ".join(map(str, inputs.folds))
            error = DataError if fold in inputs.folds else ConfigError
            raise error(
                f"a second level needs labelled slices in fold {fold} and in others, got those of folds {known}"
            )
        self.inputs, self.fold, self._device = inputs, fold, device
        self.recipe = inputs.recipe
        self.history: list[EpochResult] = []
        self.notes: list[str] = []
        self._train_rows = np.flatnonzero(~is_held_out_R)
        self.held_out_rows = np.flatnonzero(is_held_out_R)
        self._model = create_series_model(self.recipe, device)
        self._has_begun = False

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether every epoch is done."""
        return self.epoch >= self._model.n_epochs

    @property
    def n_epochs(self) -> int:
        """Epochs of the whole run."""
        return self._model.n_epochs

    @cached_property
    def _train(self) -> tuple[Any, np.ndarray]:
        """The slices that are learnt from and their labels, none of the held-out fold."""
        return self.inputs.labelled.take(self._train_rows), self.inputs.y_RL[self._train_rows]

    def run_epoch(self, after_step: Callable[["SecondLevelRun"], None] | None = None) -> EpochResult:
        """Learn one epoch further and judge the model on the held-out fold.

        Args:
            after_step: called once the epoch has been learnt, before it is judged.

        Returns:
            Losses in nats; where the model has no loss of its own, the training loss is that of its predictions of what
            it has learnt from.
        """
        view, y_RL = self._train
        start = time.monotonic()
        if not self._has_begun:
            self._model.begin(view, y_RL)
            self._has_begun = True
        train_loss = self._model.run_epoch()
        if math.isnan(train_loss):
            train_loss = _loss(y_RL, self._model.predict(view))
        if after_step is not None:
            after_step(self)
        held_out_y_RL = self.inputs.y_RL[self.held_out_rows]
        loss = _loss(held_out_y_RL, self.predict_held_out())
        seconds = time.monotonic() - start
        result = EpochResult(
            self.epoch + 1, train_loss, loss, _lr(self.recipe), seconds, len(view) / max(seconds, 1e-9)
        )
        self.history.append(result)
        return result

    def predict_held_out(self) -> np.ndarray:
        """Return probabilities float64 (R, L) of the slices ``held_out_rows`` of the labelled view."""
        return self._model.predict(self.inputs.labelled.take(self.held_out_rows))

    def predict_test(self) -> np.ndarray:
        """Return probabilities float64 (T, L) of the unlabelled slices.

        Each first-level fold model's predictions are taken for themselves, as out-of-fold ones are those of one model;
        what comes of them is averaged in log odds.
        """
        views = self.inputs.unlabelled
        if not len(views[0]):
            return np.empty((0, N_LABELS))
        return mean_of_logits(np.stack([self._model.predict(view) for view in views]))

    def save(self, path: Path) -> None:
        """Write everything that taking up the run again needs."""
        arrays, values = self._model.state()
        history = [asdict(result) for result in self.history]
        save_state(path, with_prefix("model", arrays), self._about("resume", values, history=history, notes=self.notes))

    def save_weights(self, path: Path) -> None:
        """Write what predicts, and what brings the members' embeddings into one system."""
        arrays, values = self._model.weights()
        kept = with_prefix("model", arrays)
        for place, embeddings in enumerate(self.inputs.parts):
            kept |= with_prefix(f"embeddings{place}", embeddings.space.arrays())
        embedded = [embeddings.recipe_id for embeddings in self.inputs.parts]
        save_state(path, kept, self._about("weights", values, embedded=embedded))

    def load(self, path: Path) -> None:
        """Take up a run that ``save`` left.

        Raises:
            DataError: no such file, not such a checkpoint, or one of another recipe.
            ConflictError: it was trained or judged on other predictions, slices or labels.
        """
        arrays, about = load_state(path, "resume")
        if about.get("recipe") != self.recipe.to_dict():
            raise DataError(f"checkpoint {path} is of another recipe; remove it to train from the start")
        if about.get("inputs") != dict(self.inputs.ids) or about.get("fold") != self.fold:
            raise ConflictError(
                f"checkpoint {path} was trained on other predictions, slices or folds than the workspace now has, and "
                "may have seen those that it is judged on; remove it to train from the start"
            )
        model = create_series_model(self.recipe, self._device)
        self._model = model.restore((part(arrays, "model"), about["model"]))
        self._has_begun = False
        self.history = [EpochResult(**result) for result in about["history"]]
        self.notes[:] = about["notes"]

    def _about(self, kind: str, values: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        about = {"kind": kind, "recipe": self.recipe.to_dict(), "recipe_id": self.recipe.recipe_id, "fold": self.fold}
        members = [member.recipe_id for member in self.inputs.members]
        return {**about, "members": members, "inputs": dict(self.inputs.ids), "model": dict(values), **more}


def open_second_level_fold(workspace: Workspace, recipe: SecondLevelRecipe, fold: int) -> SecondLevelRun:
    """Make ready one fold of a recipe.

    Raises:
        ConfigError, DataError, ConflictError: see ``load_inputs`` and ``SecondLevelRun``.
    """
    return SecondLevelRun(load_inputs(workspace, recipe), fold)


def load_series_model(path: Path) -> SeriesModel:
    """Return the model of one fold from the weights that it left.

    It takes the predictions of the members that the file names, in that order.

    Raises:
        DataError: no such file, or not the weights of a second level.
    """
    arrays, about = load_state(path, "weights")
    recipe = SecondLevelRecipe.from_dict(about["recipe"])
    return create_series_model(recipe).restore((part(arrays, "model"), about["model"]))


def _loss(y_RL: np.ndarray, p_RL: np.ndarray) -> float:
    """The metric; NaN for what is no number, as of a model that diverged."""
    return weighted_log_loss(y_RL, p_RL) if np.isfinite(p_RL).all() else math.nan


def _lr(recipe: SecondLevelRecipe) -> float:
    """The recipe's learning rate, as far as its model has one."""
    if recipe.model in SEQUENCES:
        return recipe.lr
    return recipe.learning_rate if recipe.model in TREES else 0.0
