"""One training run, an epoch at a time; it can be left after any epoch and taken up again to the same bits.

Dimension key: B batch, C channels, H height, W width, L labels, N slices.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ichtune.data.augment import find_augmentation
from ichtune.data.dataset import SliceBatches, n_steps
from ichtune.errors import ConflictError, DataError
from ichtune.metrics import weighted_log_loss
from ichtune.models.create import check_architecture, create_model, start_at_rates
from ichtune.recipe import Recipe
from ichtune.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from ichtune.training.ema import WeightAverage
from ichtune.training.losses import find_loss
from ichtune.training.lr_schedules import find_lr_schedule, lr_at
from ichtune.training.optimizers import create_optimizer, find_optimizer
from ichtune.training.predict import autocast, predict_rows, to_input


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to; losses in nats, ``val_weighted_log_loss`` is the metric on the held-out rows."""

    epoch: int
    train_loss: float
    val_weighted_log_loss: float
    lr: float
    seconds: float
    images_per_second: float


def best_device() -> torch.device:
    """Return the first CUDA device, or the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def device_for(wants_gpu: bool) -> torch.device:
    """Return the best device for work that asked for a GPU, and the CPU for work that did not."""
    return best_device() if wants_gpu else torch.device("cpu")


#: For each recipe key that names an entry of a table, what raises ``ConfigError`` for a name that is not there.
NAME_CHECKS: dict[str, Callable[[str], object]] = {
    "architecture": check_architecture,
    "loss": find_loss,
    "optimizer": find_optimizer,
    "lr_schedule": find_lr_schedule,
    "augmentation": find_augmentation,
}


def check_recipe(recipe: Recipe) -> None:
    """Raise ``ConfigError`` now for any name in the recipe that no table knows, before time is spent."""
    for key, check in NAME_CHECKS.items():
        check(getattr(recipe, key))


def _seed_everything(*entropy: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))


class TrainingRun:
    """A recipe being trained on some rows and validated on others.

    Epochs count from 1. Everything random in an epoch is drawn from the recipe's seed and the epoch's number, so a run
    that is interrupted and taken up from its checkpoint ends with the same weights as one that is not.

    Args:
        recipe: what to do.
        data: the slices.
        train_rows: cache rows to learn from, labelled.
        valid_rows: cache rows to be judged on, labelled, of other patients.
        device: where to compute; ``best_device()`` by default.

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
    ) -> None:
        if len(train_rows) < 2 or len(valid_rows) < 1:
            raise DataError(
                f"training needs at least 2 labelled slices and validation 1, got {len(train_rows)} and "
                f"{len(valid_rows)}; prepare more patients or ask for fewer folds"
            )
        self.recipe = recipe
        self.data = data
        self.train_rows = train_rows
        self.valid_rows = valid_rows
        self.device = device or best_device()
        self.history: list[EpochResult] = []
        self._steps_an_epoch = n_steps(len(train_rows), recipe.batch_size)
        self._n_steps = recipe.epochs * self._steps_an_epoch
        self._loss = find_loss(recipe.loss)
        self._weights_L = torch.tensor(recipe.loss_weights, device=self.device)
        _seed_everything(recipe.seed)
        model = create_model(
            recipe.architecture,
            recipe.n_channels,
            image_px=recipe.image_px,
            pretrained=recipe.pretrained,
            dropout=recipe.dropout,
        )
        start_at_rates(model, data.labels(train_rows).mean(axis=0).tolist())  # timm leaves out a pretrained head
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self._optimizer = create_optimizer(self.model, recipe)
        self._average = WeightAverage(self.model, recipe.ema_decay)

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether every epoch of the recipe is done."""
        return self.epoch >= self.recipe.epochs

    def run_epoch(self) -> EpochResult:
        """Train one epoch and validate it; the result joins ``history``."""
        start = time.perf_counter()
        train_loss = self._train_epoch()
        trained = time.perf_counter() - start
        epoch = self.epoch + 1
        p_NL = self.predict(self.valid_rows)
        y_NL = self.data.labels(self.valid_rows)
        # Not a number is what the scheduler must see of a run that diverged; the metric itself would refuse it.
        val_loss = weighted_log_loss(y_NL, p_NL) if np.isfinite(p_NL).all() else math.nan
        result = EpochResult(
            epoch=epoch,
            train_loss=train_loss,
            val_weighted_log_loss=val_loss,
            lr=lr_at(self.recipe, epoch / self.recipe.epochs),
            seconds=time.perf_counter() - start,
            images_per_second=len(self.train_rows) / trained,
        )
        self.history.append(result)
        return result

    def _train_epoch(self) -> float:
        _seed_everything(self.recipe.seed, self.epoch + 1)
        recipe = self.recipe
        self.model.train()
        total = torch.zeros((), device=self.device)
        batches = self.data.training(self.train_rows, recipe.batch_size, recipe.augmentation, recipe.seed, self.epoch)
        for step, batch in enumerate(batches):
            x_BCHW = to_input(batch.hu_BCHW, recipe, self.device)
            y_BL = torch.from_numpy(batch.y_BL).to(self.device, non_blocking=True)
            total += self._step(x_BCHW, y_BL, self.epoch * self._steps_an_epoch + step) * len(batch.rows)
        return float(total) / len(self.train_rows)

    def _step(self, x_BCHW: torch.Tensor, y_BL: torch.Tensor, step: int) -> torch.Tensor:
        lr = lr_at(self.recipe, (step + 0.5) / self._n_steps)  # mid-step: neither the first nor the last is lost
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        with autocast(self.device):
            logits_BL = self.model(x_BCHW)
        loss = self._loss(logits_BL, y_BL, self._weights_L)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._average.update(self.model, step)
        return loss.detach()

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return probabilities (N, L) float64 of the given rows, from the averaged weights where there are any."""
        with self._average.applied_to(self.model):
            return predict_rows(self.model, self.recipe, self.data, rows, self.device)

    def save(self, path: Path) -> None:
        """Write everything that taking up the run again needs."""
        tensors = {
            **with_prefix("model", self.model.state_dict()),
            **with_prefix("average", self._average.tensors),
            **with_prefix("optimizer", optimizer_tensors(self._optimizer)),
        }
        history = [asdict(result) for result in self.history]
        about = {"recipe": self.recipe.to_dict(), "rows_id": self._rows_id, "history": history}
        save_checkpoint(path, tensors, {"kind": "resume", **about})

    @cached_property
    def _rows_id(self) -> str:
        """Hash of what is learnt from and judged on: a checkpoint of other rows would leak."""
        digest = hashlib.sha256(self.data.cache.cache_id.encode())
        for rows in (self.train_rows, self.valid_rows):
            digest.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
            digest.update(self.data.labels(rows).astype("<f4").tobytes())
        return digest.hexdigest()

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
        self.model.load_state_dict(without_prefix("model", tensors))
        self._average.restore(without_prefix("average", tensors))
        restore_optimizer(self._optimizer, without_prefix("optimizer", tensors))
        self.history = [EpochResult(**result) for result in about["history"]]

    def save_weights(self, path: Path, about: dict[str, object]) -> None:
        """Write only the weights that predict (averaged where there are any)."""
        with self._average.applied_to(self.model):
            save_checkpoint(
                path, self.model.state_dict(), {"kind": "weights", "recipe": self.recipe.to_dict(), **about}
            )
