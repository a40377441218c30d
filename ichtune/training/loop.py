"""One training run; it can be left after any step and taken up again to the same bits.

Dimension key: B batch, S slices seen, H height, W width, L labels, K targets, N slices.
"""

import copy
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ichtune.data.dataset import SliceBatches, n_steps
from ichtune.data.sampling import n_epoch_rows
from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.metrics import weighted_log_loss
from ichtune.models.network import head_parameters, norm_parameters
from ichtune.recipe import Recipe
from ichtune.training.averages import EqualAverage, WeightAverage
from ichtune.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from ichtune.training.checks import check_recipe
from ichtune.training.device_augment import augment_on_device, draw_jitter
from ichtune.training.devices import DeviceBatch, batches_on, best_device
from ichtune.training.gradient import BatchGradient
from ichtune.training.lr_schedules import frozen_lr_at, lr_at
from ichtune.training.mixing import mix
from ichtune.training.neighbour_targets import exchange_reversed
from ichtune.training.optimizers import create_optimizer, group_state, restore_group_state, set_lr
from ichtune.training.predict import FoldModel, predict_rows, save_model
from ichtune.training.provenance import rows_id
from ichtune.training.results import EpochResult
from ichtune.training.start import start_network

#: Tensors of a run, and the rest of what it is.
RunState = tuple[dict[str, torch.Tensor], dict[str, Any]]


def seed_of(*entropy: int) -> int:
    """Return one seed made of several numbers."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


class TrainingRun:
    """A recipe being trained on some rows and validated on others.

    Epochs count from 1. Everything random in a step is drawn from the recipe's seed, the epoch's number and the step's,
    so a run that is interrupted and taken up from its checkpoint ends with the same weights as one that is not.

    Args:
        recipe: what to do.
        data: the slices.
        train_rows: cache rows to learn from; with labels, or with pseudo-labels in ``data.targets``.
        valid_rows: cache rows to be judged on, labelled, of other patients.
        device: where to compute; ``best_device()`` by default.
        warm_start: weights to start from; ``ichtune.training.fold_run`` finds them and refuses those that leak.

    Attributes:
        network: the network being trained, its own weights and not an average of them.
        history: results of the epochs that are done.
        steps_an_epoch: optimizer steps of a whole epoch.
        notes: what a user should know of how the run was done.

    Raises:
        ConfigError: a name in the recipe that no table knows.
        DataError: fewer than 2 slices to learn from, or none to be judged on.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: SliceBatches,
        train_rows: np.ndarray,
        valid_rows: np.ndarray,
        device: torch.device | None = None,
        warm_start: Path | None = None,
    ) -> None:
        if len(train_rows) < 2 or len(valid_rows) < 1:
            raise DataError(
                f"training needs at least 2 labelled slices and validation 1, got {len(train_rows)} and "
                f"{len(valid_rows)}; prepare more patients or ask for fewer folds"
            )
        self.recipe, self.data = recipe, data
        self.train_rows, self.valid_rows = train_rows, valid_rows
        self.device = device or best_device()
        self.history: list[EpochResult] = []
        self._warm_start = warm_start
        check_recipe(recipe)
        n_rows = n_epoch_rows(train_rows, data.slices, recipe)
        if n_rows < 2:
            raise DataError(
                f"an epoch needs at least 2 slices, got {n_rows} of {len(train_rows)} by negative_share "
                f"{recipe.negative_share:g} and slices_per_series {recipe.slices_per_series}; draw more of them"
            )
        self.steps_an_epoch = n_steps(n_rows, recipe.batch_size)
        torch.manual_seed(seed_of(recipe.seed))
        network, self.notes = start_network(recipe, data, train_rows, warm_start)
        if recipe.batch_size < 2 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
            raise ConfigError(
                f"{recipe.architecture} has batch norm, which needs batches of at least 2 slices, got batch_size "
                f"{recipe.batch_size}; write batch_size: 2, or take a network with another norm"
            )
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self._gradient = BatchGradient(self.network, recipe, self.notes)
        self._ema = WeightAverage(self.network, recipe.ema_decay)
        self._swa = EqualAverage(self.network, recipe.swa_start < 1.0)
        self._earlier: deque[dict[str, torch.Tensor]] = deque(maxlen=recipe.snapshots - 1)
        self._begin_epoch()
        self._enter_phase()

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return len(self.history)

    @property
    def step_in_epoch(self) -> int:
        """Optimizer steps that are done of the epoch under way."""
        return self._step_in_epoch

    @property
    def lr_now(self) -> float:
        """Learning rate that the schedule has reached."""
        return self._lr(self._step_in_epoch)

    @property
    def finished(self) -> bool:
        """Whether every epoch of the recipe is done."""
        return self.epoch >= self.recipe.epochs

    @property
    def is_short_of_memory(self) -> bool:
        """Whether batches pass in less memory than the recipe says, because that much was not there; notes say how."""
        return self._gradient.is_short_of_memory

    def _begin_epoch(self) -> None:
        self._step_in_epoch, self._seconds, self._seen = 0, 0.0, 0
        self._total = torch.zeros((), device=self.device)

    def _enter_phase(self) -> None:
        """Let head and norms learn alone while the recipe says so; after that, all, with a new optimizer."""
        self._is_frozen = self.epoch < self.recipe.frozen_epochs
        only = {*head_parameters(self.network), *norm_parameters(self.network)} if self._is_frozen else None
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(only is None or name in only)
        self._optimizer = create_optimizer(self.network, self.recipe, only=only)

    def run_epoch(self, after_step: Callable[["TrainingRun"], None] | None = None) -> EpochResult:
        """Train what is left of the epoch under way and validate it; the result joins ``history``.

        Args:
            after_step: called after every optimizer step, for example to ``save``.
        """
        start = time.perf_counter()
        self.train_epoch(after_step)
        trained = time.perf_counter() - start
        epoch = self.epoch + 1
        self._average_epoch(epoch)
        p_NL = self.predict(self.valid_rows)
        y_NL = self.data.labels(self.valid_rows)
        # Not a number is what the scheduler must see of a run that diverged; the metric itself would refuse it.
        val_loss = weighted_log_loss(y_NL, p_NL) if np.isfinite(p_NL).all() else math.nan
        result = EpochResult(
            epoch=epoch,
            train_loss=float(self._total) / max(1, self._seen),
            val_weighted_log_loss=val_loss,
            lr=self._lr(self.steps_an_epoch),
            seconds=self._seconds + time.perf_counter() - start,
            images_per_second=self._seen / max(self._seconds + trained, 1e-9),
        )
        self.history.append(result)
        self._begin_epoch()
        if self._is_frozen and self.epoch >= self.recipe.frozen_epochs:
            self._enter_phase()
        return result

    def endless(self) -> Iterator[DeviceBatch]:
        """Yield training batches on the device, epoch after epoch, without taking a step."""
        for epoch in itertools.count():
            yield from batches_on(self.data.training(self.train_rows, self.recipe, epoch), self.device)

    def train_epoch(self, after_step: Callable[["TrainingRun"], None] | None = None) -> None:
        """Take the optimizer steps that are left of the epoch under way, without validating."""
        if self._step_in_epoch == 0 and self.epoch and self.recipe.snapshots > 1:
            self._earlier.append(self._predicting())
        self.network.train()
        batches = self.data.training(self.train_rows, self.recipe, self.epoch, start_step=self._step_in_epoch)
        for batch in batches_on(batches, self.device):
            start = time.perf_counter()
            n_slices = len(batch.y_BK)
            self._total += self.step(batch) * n_slices
            self._seen += n_slices
            if after_step is not None:
                self._seconds += time.perf_counter() - start
                after_step(self)
                self._seconds -= time.perf_counter() - start

    def _lr(self, step_in_epoch: float) -> float:
        """Learning rate at a step of the epoch under way; each phase has a schedule of its own length."""
        recipe = self.recipe
        done = self.epoch * self.steps_an_epoch + step_in_epoch
        frozen = recipe.frozen_epochs * self.steps_an_epoch
        if self._is_frozen:
            return frozen_lr_at(recipe, done / frozen)
        # by the training loss: labels of the fold that will be scored may not steer what is scored
        losses = [result.train_loss for result in self.history[recipe.frozen_epochs :]]
        return lr_at(recipe, (done - frozen) / (recipe.epochs * self.steps_an_epoch - frozen), losses)

    def step(self, batch: DeviceBatch, lr: float | None = None) -> torch.Tensor:
        """Take one optimizer step on a batch.

        Args:
            batch: what ``batches_on`` gave.
            lr: learning rate; that of the recipe's schedule by default.

        Returns:
            The batch's loss before the step, a scalar on the device.
        """
        return self.learn(*self.prepare(batch), lr)

    def _seed(self) -> int:
        return seed_of(self.recipe.seed, self.epoch + 1, self._step_in_epoch)

    def prepare(self, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the augmented and mixed input (B, C, H, W), targets and weights (B, K) of the step to come."""
        recipe, seed = self.recipe, self._seed()
        hu_BSHW, reversed_B = augment_on_device(batch.hu_BSHW, recipe, seed)
        y_BK, weight_BK = exchange_reversed(batch.y_BK, batch.weight_BK, reversed_B)
        jitter_BN2 = draw_jitter(recipe, len(hu_BSHW), seed, self.device)
        x_BCHW = self.network.inputs(hu_BSHW, batch.own_B2, jitter_BN2)
        return mix(x_BCHW, y_BK, weight_BK, recipe, seed)

    def learn(
        self, x_BCHW: torch.Tensor, y_BK: torch.Tensor, weight_BK: torch.Tensor, lr: float | None = None
    ) -> torch.Tensor:
        """Take one optimizer step on what ``prepare`` gave; takes and returns what ``step`` does.

        Where memory runs out the batch passes in smaller parts: ``ichtune.training.gradient`` says how.

        Raises:
            NothingUsableError: not even the smallest part fits.
        """
        recipe, step = self.recipe, self._step_in_epoch
        # mid-step: neither the first nor the last is lost
        set_lr(self._optimizer, self._lr(step + 0.5) if lr is None else lr)
        loss = self._gradient(x_BCHW, y_BK, weight_BK, self._seed())
        if recipe.grad_clip > 0:
            trained = [p for p in self.network.parameters() if p.requires_grad]
            torch.nn.utils.clip_grad_norm_(trained, recipe.grad_clip)
        self._optimizer.step()
        self._ema.update(self.network, self.epoch * self.steps_an_epoch + step)
        self._step_in_epoch += 1
        return loss

    def _average_epoch(self, epoch: int) -> None:
        """Take the weights of an epoch's end into the average of those after ``swa_start``."""
        if epoch / self.recipe.epochs > self.recipe.swa_start:
            self._swa.update(self.network)

    def _predicting(self) -> dict[str, torch.Tensor]:
        """The weights that predict now: an average where the recipe asks for one and there is one, else the last."""
        with self._ema.applied_to(self.network), self._swa.applied_to(self.network):
            return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def states(self) -> list[dict[str, torch.Tensor]]:
        """Return the weights of each network that predicts: those of the last ``snapshots`` epochs."""
        return [*self._earlier, self._predicting()]

    def model(self) -> FoldModel:
        """Return the networks that predict, apart from the one that is trained."""
        networks = []
        for state in self.states():
            network = copy.deepcopy(self.network)
            network.load_state_dict(state)
            networks.append(network)
        return FoldModel(tuple(networks))

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return probabilities (N, L) float64 of the given rows by the weights that predict."""
        if self._earlier:
            return predict_rows(self.model(), self.recipe, self.data, rows, self.device)
        with self._ema.applied_to(self.network), self._swa.applied_to(self.network):
            return predict_rows(FoldModel((self.network,)), self.recipe, self.data, rows, self.device)

    def predict_plain(self, rows: np.ndarray) -> np.ndarray:
        """Return probabilities (N, L) float64 of the given rows by the network's own weights, no average of them."""
        return predict_rows(FoldModel((self.network,)), self.recipe, self.data, rows, self.device)

    def save(self, path: Path) -> None:
        """Write everything that taking up the run again needs; it may be in the middle of an epoch."""
        tensors, about = self._state()
        save_checkpoint(path, tensors, {"kind": "resume", **about})

    def snapshot(self) -> RunState:
        """Return what ``save`` would write, kept in memory; the run may go on meanwhile."""
        tensors, about = self._state()
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}, copy.deepcopy(about)

    def restore(self, state: RunState) -> None:
        """Be again what the run was when ``snapshot`` was taken, to the bit."""
        self._put_back(*state)

    def _state(self) -> RunState:
        tensors = {
            **with_prefix("model", self.network.state_dict()),
            **with_prefix("ema", self._ema.tensors),
            **with_prefix("swa", self._swa.tensors),
            **with_prefix("optimizer", optimizer_tensors(self._optimizer)),
            "total": self._total,
        }
        for number, state in enumerate(self._earlier):
            tensors |= with_prefix(f"snapshot{number}", state)
        about = {
            "recipe": self.recipe.to_dict(),
            "rows_id": self._rows_id,
            "history": [asdict(result) for result in self.history],
            "epoch": {"step": self._step_in_epoch, "seen": self._seen, "seconds": self._seconds},
            "optimizer_groups": group_state(self._optimizer),
            "n_averaged": self._swa.n_averaged,
            "n_snapshots": len(self._earlier),
            "notes": list(self.notes),
        }
        return tensors, about

    @cached_property
    def _rows_id(self) -> str:
        """Hash of what is learnt from and judged on: a checkpoint of other rows would leak."""
        return rows_id(self.data, self.train_rows, self.valid_rows, self._warm_start)

    def load(self, path: Path) -> None:
        """Take up a run that ``save`` left.

        Raises:
            DataError: no such file, not such a checkpoint, or one of another recipe.
            ConflictError: it was trained or judged on other slices or labels.
        """
        tensors, about = load_checkpoint(path, "resume")
        if Recipe.from_dict(about["recipe"]) != self.recipe:
            raise DataError(f"checkpoint {path} is of another recipe; remove it to train from the start")
        if about["rows_id"] != self._rows_id:
            raise ConflictError(
                f"checkpoint {path} was trained on other slices or folds than the workspace now has, and may have "
                f"seen those that it is judged on; remove it to train from the start"
            )
        self._put_back(tensors, about)

    def _put_back(self, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        self.history = [EpochResult(**result) for result in about["history"]]
        self.notes[:] = about["notes"]
        self.network.load_state_dict(without_prefix("model", tensors))
        self._ema.restore(without_prefix("ema", tensors))
        self._swa.restore(without_prefix("swa", tensors), about["n_averaged"])
        snapshots = [without_prefix(f"snapshot{number}", tensors) for number in range(about["n_snapshots"])]
        self._earlier = deque(snapshots, maxlen=self.recipe.snapshots - 1)
        self._begin_epoch()
        self._enter_phase()
        restore_optimizer(self._optimizer, without_prefix("optimizer", tensors))
        restore_group_state(self._optimizer, about["optimizer_groups"])
        self._step_in_epoch, self._seen, self._seconds = (about["epoch"][k] for k in ("step", "seen", "seconds"))
        self._total = tensors["total"].to(self.device)

    def save_weights(self, path: Path, about: Mapping[str, Any], **sidecar: Any) -> None:
        """Write only the weights that predict, with their sidecar."""
        save_model(path, self.states(), self.recipe, about, notes=list(self.notes), **sidecar)

    def save_epoch(self, path: Path, about: Mapping[str, Any], **sidecar: Any) -> None:
        """Write the weights that predict now of this epoch alone, without the snapshots before it."""
        save_model(path, [self._predicting()], self.recipe, about, notes=list(self.notes), **sidecar)

    def save_last(self, path: Path, about: Mapping[str, Any], **sidecar: Any) -> None:
        """Write the network's own weights of the last step, whatever average predicts."""
        save_model(path, [self.network.state_dict()], self.recipe, about, notes=list(self.notes), **sidecar)
