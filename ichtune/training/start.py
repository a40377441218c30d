"""The network that a run starts from: random, pretrained, or warm from another run's weights.

Dimension key: N slices, L labels, K outputs, C input channels.
"""

from pathlib import Path

import numpy as np
import torch

from ichtune.data.dataset import SliceBatches
from ichtune.labels import LABELS, N_LABELS
from ichtune.models.create import start_at_rates
from ichtune.models.network import Network, create_network
from ichtune.models.transfer import adapt_weights
from ichtune.recipe import Recipe
from ichtune.training.checkpoint import load_checkpoint, without_prefix
from ichtune.training.devices import pinned

#: Training slices over which the input's moments are taken, evenly spaced, and how many at a time.
MOMENT_SLICES = 512
_MOMENT_BATCH = 64


def start_network(
    recipe: Recipe, data: SliceBatches, train_rows: np.ndarray, warm_start: Path | None = None
) -> tuple[Network, list[str]]:
    """Build the recipe's network on the CPU, with the weights that training starts from.

    Args:
        recipe: what to build.
        data: the slices, for label rates and moments; only ``train_rows`` are looked at.
        train_rows: cache rows that are learnt from.
        warm_start: weights of another run whose recipe may differ in size, windows, neighbours and targets.

    Returns:
        The network, and notes on what of ``warm_start`` could not be carried over.
    """
    network = create_network(recipe)
    notes: list[str] = []
    if warm_start is None:
        start_at_rates(network, start_rates(recipe, data, train_rows).tolist())  # timm leaves out a pretrained head
    else:
        tensors, about = load_checkpoint(warm_start, "weights")
        newest = int(about["n_networks"]) - 1
        weights = without_prefix(f"network{newest}", tensors)
        if Recipe.from_dict(about["recipe"]).windows != recipe.windows:  # windows that were learnt are other windows
            weights = {name: tensor for name, tensor in weights.items() if not name.startswith("inputs.")}
        adapted, notes = adapt_weights(weights, network)
        network.load_state_dict(adapted, strict=False)
    if recipe.normalisation == "data":
        _fit_moments(network, recipe, data, train_rows)
    return network, notes


def start_rates(recipe: Recipe, data: SliceBatches, train_rows: np.ndarray) -> np.ndarray:
    """Return the share of each label (L,) as an epoch's loss sees it, sampling and weights included."""
    y_NL = data.targets.y_NK[train_rows, :N_LABELS].astype(np.float64)
    weight_NL = data.targets.weight_NK[train_rows, :N_LABELS].astype(np.float64)
    is_negative_N = np.nan_to_num(data.labels(train_rows)[:, LABELS.index("any")], nan=1.0) == 0
    weight_NL[is_negative_N] *= recipe.negative_share
    total_L = weight_NL.sum(axis=0)
    plain_L = y_NL.mean(axis=0)
    return np.where(total_L > 0, (y_NL * weight_NL).sum(axis=0) / np.maximum(total_L, 1e-12), plain_L)


def _fit_moments(network: Network, recipe: Recipe, data: SliceBatches, train_rows: np.ndarray) -> None:
    spread = np.sort(train_rows)[np.linspace(0, len(train_rows) - 1, min(MOMENT_SLICES, len(train_rows))).astype(int)]
    network.inputs.fit_moments(
        network.inputs.windowed(batch.hu_BSHW, batch.own_B2)
        for batch in (pinned(b, torch.device("cpu")) for b in data.in_order(spread, _MOMENT_BATCH))
    )
