"""SequenceModel: what every sequence model does alike, which is all but the body of its network.

Dimension key: R slices, B series of a batch, T slices of the longest, S slices of all, F inputs, D embedding
components, L labels.
"""

import math
from abc import abstractmethod
from typing import ClassVar, Self

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.errors import DataError
from ichtune.labels import N_LABELS
from ichtune.second_level.base import SeriesModel, State
from ichtune.second_level.sequence_inputs import Scaling, SliceInputs, fit_scaling
from ichtune.second_level.sequence_network import (
    SequenceBody,
    SequenceNetwork,
    one_thread,
    own_randomness,
    parameter_groups,
)
from ichtune.second_level.series_batches import SeriesBatch, batches_in_order, n_training_batches, training_batches
from ichtune.second_level.views import SeriesView
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.training.checkpoint import optimizer_tensors, restore_optimizer, with_prefix, without_prefix
from ichtune.training.devices import best_device

#: Share of the steps over which the learning rate rises.
WARM_UP = 0.05
#: Norm that a step's gradient is held to.
GRADIENT_NORM = 1.0
#: Series that are predicted at a time.
_PREDICTED = 64
#: Streams of randomness of one seed.
_START, _EPOCHS = 0, 1
#: Arrays of a state that only going on needs: twice the size of the network.
_OPTIMIZER = "optimizer"


class SequenceModel(SeriesModel):
    """A network that adds to the members' mean log odds what it learns from the series: untrained, it is their mean.

    Each epoch sees each series once, perhaps with every second slice, perhaps upside down. AdamW, whose rate falls on a
    cosine after a short rise. Where the recipe sees metadata only, the label rates stand in the place of the mean.

    Args:
        recipe: what to do.
        device: where to compute; the first GPU by default, or the CPU.
    """

    needs_torch: ClassVar[bool] = True

    def __init__(self, recipe: SecondLevelRecipe, device: torch.device | None = None) -> None:
        super().__init__(recipe)
        self.device = best_device() if device is None else device
        self.epoch = 0
        self._is_restored = self._only_predicts = False
        self._network: SequenceNetwork | None = None
        self._seen: tuple[SeriesView, SliceInputs, np.ndarray] | None = None

    @abstractmethod
    def body(self) -> SequenceBody:
        """Return the untrained body of the network."""

    def begin(self, view: SeriesView, y_RL: np.ndarray) -> Self:
        """See ``SeriesModel``; goes on from what was restored, if anything was."""
        if y_RL.shape != (len(view), N_LABELS) or not len(view) or not np.isin(y_RL, (0, 1)).all():
            raise DataError(
                f"labels must be 0 or 1 for each of the view's {len(view)} slices and {N_LABELS} labels, at least one "
                f"slice, got shape {y_RL.shape}"
            )
        inputs = SliceInputs(view, self.recipe)
        self._seen = view, inputs, y_RL.astype(np.float32)
        if not self._is_restored:
            whole = batches_in_order(view, _PREDICTED)
            raw = (inputs.raw(batch.rows_S, batch.lengths_B) for batch in whole)
            scaling = fit_scaling(raw, inputs.n_optional())
            self._build(scaling, fit_scaling([inputs.e_RD]), to_logits(y_RL.mean(axis=0)))
        self._is_restored = False
        return self

    def _build(self, scaling: Scaling, e_scaling: Scaling, rates_L: np.ndarray) -> None:
        """Make the untrained network and its optimizer."""
        recipe = self.recipe
        self.epoch, self._only_predicts = 0, False
        self._scaling, self._e_scaling, self._rates_L = scaling, e_scaling, rates_L
        with own_randomness(_seed(recipe.seed, _START), self.device):
            network = SequenceNetwork(
                scaling.n_outputs, e_scaling.n_outputs, recipe.hidden, recipe.dropout, self.body()
            )
        self._network = network.to(self.device)
        self._optimizer = torch.optim.AdamW(parameter_groups(self._network, recipe.weight_decay), lr=recipe.lr)

    def run_epoch(self) -> float:
        """See ``SeriesModel``; the loss is the mean over the slices that were shown.

        Raises:
            DataError: ``begin`` was not called, or the model was restored from weights alone.
        """
        network = self._begun()
        if self._only_predicts:
            raise DataError("weights without their optimizer predict and cannot be trained on: restore a whole state")
        if self._seen is None:
            raise DataError("a sequence model must be given the slices to learn from: call begin before run_epoch")
        view, inputs, y_RL = self._seen
        self._is_restored = False
        n_steps = n_training_batches(view, self.recipe)
        total, n_slices = torch.zeros((), dtype=torch.float64, device=self.device), 0
        network.train()
        with own_randomness(_seed(self.recipe.seed, _EPOCHS, self.epoch), self.device), one_thread():
            for step, batch in enumerate(training_batches(view, self.recipe, self.epoch)):
                done = (self.epoch * n_steps + step + 0.5) / (self.n_epochs * n_steps)
                loss = self._step(network, batch, inputs, y_RL, lr_at(self.recipe.lr, done))
                total += loss * len(batch.rows_S)
                n_slices += len(batch.rows_S)
        self.epoch += 1
        return float(total) / n_slices

    def _step(
        self, network: SequenceNetwork, batch: SeriesBatch, inputs: SliceInputs, y_RL: np.ndarray, lr: float
    ) -> torch.Tensor:
        """Take one step; return the batch's loss before it, a scalar on the device."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        start_BTL = self._tensor(batch.padded(self._start(inputs, batch).astype(np.float32)))
        losses_BTL = binary_cross_entropy_with_logits(
            start_BTL + self._added(network, batch, inputs),
            self._tensor(batch.padded(y_RL[batch.rows_S])),
            reduction="none",
        )
        weight_L = torch.tensor(self.recipe.loss_weights, device=self.device)
        weight_BTL = self._tensor(batch.mask)[..., None] * (weight_L / weight_L.sum())
        loss = (losses_BTL * weight_BTL).sum() / len(batch.rows_S)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        self._optimizer.step()
        return loss.detach()

    def predict(self, view: SeriesView) -> np.ndarray:
        """See ``SeriesModel``; with ``tta`` the mean of the log odds that the series gives both ways up.

        Raises:
            DataError: the model has learnt nothing, or the view has other members.
        """
        network = self._begun().eval()
        inputs = SliceInputs(view, self.recipe)
        log_odds_RL = np.zeros((len(view), N_LABELS))
        ways = (False, True) if self.recipe.tta else (False,)
        with torch.inference_mode(), one_thread():
            for upside_down in ways:
                for batch in batches_in_order(view, _PREDICTED, upside_down):
                    added_BTL = self._added(network, batch, inputs).cpu().numpy()
                    added_SL = added_BTL[batch.mask].astype(np.float64)
                    log_odds_RL[batch.rows_S] += (self._start(inputs, batch) + added_SL) / len(ways)
        return from_logits(log_odds_RL)

    def _start(self, inputs: SliceInputs, batch: SeriesBatch) -> np.ndarray:
        """Log odds (S, L) that the network adds to, float64."""
        if inputs.mean_RL is None:
            return np.broadcast_to(self._rates_L, (len(batch.rows_S), N_LABELS))
        return np.asarray(inputs.mean_RL[batch.rows_S])

    def _added(self, network: SequenceNetwork, batch: SeriesBatch, inputs: SliceInputs) -> torch.Tensor:
        """What the network adds to the log odds (B, T, L)."""
        x_SF = self._scaling(inputs.raw(batch.rows_S, batch.lengths_B))
        e_SD = self._e_scaling(inputs.e_RD[batch.rows_S])
        added_BTL: torch.Tensor = network(
            self._tensor(batch.padded(x_SF)), self._tensor(batch.padded(e_SD)), torch.from_numpy(batch.lengths_B)
        )
        return added_BTL

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

    def _begun(self) -> SequenceNetwork:
        if self._network is None:
            raise DataError("a sequence model that has learnt nothing cannot be used: call begin or restore first")
        return self._network

    def state(self) -> State:
        """See ``SeriesModel``."""
        network = self._begun()
        tensors = {
            **with_prefix("network", network.state_dict()),
            **with_prefix(_OPTIMIZER, optimizer_tensors(self._optimizer)),
        }
        arrays = {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}
        arrays |= {
            "inputs.mean": self._scaling.mean_F.copy(),
            "inputs.scale": self._scaling.scale_F.copy(),
            "embeddings.mean": self._e_scaling.mean_F.copy(),
            "embeddings.scale": self._e_scaling.scale_F.copy(),
            "rates": self._rates_L.copy(),
        }
        return arrays, {"model": self.recipe.model, "epoch": self.epoch, "n_optional": self._scaling.n_optional}

    def weights(self) -> State:
        """See ``SeriesModel``; the state without the optimizer's arrays."""
        arrays, values = self.state()
        return {name: array for name, array in arrays.items() if not name.startswith(f"{_OPTIMIZER}.")}, values

    def restore(self, state: State) -> Self:
        """See ``SeriesModel``; before or after ``begin``."""
        arrays, values = state
        try:
            scaling = Scaling(arrays["inputs.mean"], arrays["inputs.scale"], int(values["n_optional"]))
            e_scaling = Scaling(arrays["embeddings.mean"], arrays["embeddings.scale"], 0)
            self._build(scaling, e_scaling, arrays["rates"])
            tensors = {name: torch.tensor(array) for name, array in arrays.items()}
            self._begun().load_state_dict(without_prefix("network", tensors))
            moments = without_prefix(_OPTIMIZER, tensors)
            restore_optimizer(self._optimizer, moments)
            self.epoch = int(values["epoch"])
            self._only_predicts = self.epoch > 0 and not moments
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
            self._network = None
            raise DataError(
                f"this is no state of a model {self.recipe.model!r} with this recipe: {error}; train it again"
            ) from error
        self._is_restored = True
        return self


def lr_at(peak: float, done: float) -> float:
    """Return the learning rate after the share ``done`` of all steps: a straight rise, then a cosine to zero."""
    if done < WARM_UP:
        return peak * done / WARM_UP
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, (done - WARM_UP) / (1.0 - WARM_UP))))


def _seed(*entropy: int) -> int:
    """Return one seed made of several numbers."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
