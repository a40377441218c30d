"""From slices to probabilities and embeddings: the one path that validation and prediction share.

Dimension key: B batch, S slices seen, H height, W width, L labels, K outputs, M networks, N slices, D embedding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ichtune.data.dataset import SliceBatches
from ichtune.errors import DataError
from ichtune.labels import N_LABELS
from ichtune.models.network import Network, create_network
from ichtune.recipe import Recipe
from ichtune.training.calibration import undo_prior_shift
from ichtune.training.checkpoint import load_checkpoint, save_checkpoint, with_prefix, without_prefix
from ichtune.training.devices import DeviceBatch, autocast, pinned, to_device
from ichtune.training.memory import in_parts_that_fit
from ichtune.training.tta import View, find_views

#: Slices a batch when nothing is learnt, by device: small ones stay in a CPU's cache.
PREDICT_BATCH = {"cuda": 256, "cpu": 64}


@dataclass(frozen=True)
class FoldModel:
    """What a fold's training left: one network, or the networks of its last epochs, which answer together."""

    networks: tuple[Network, ...]


@dataclass(frozen=True)
class Extraction:
    """Probabilities ``p_MNL`` float64 and, where asked for, embeddings ``e_MND`` float32 of M networks."""

    p_MNL: np.ndarray
    e_MND: np.ndarray | None


@torch.inference_mode()
def extract(
    model: FoldModel,
    recipe: Recipe,
    data: SliceBatches,
    rows: np.ndarray,
    device: torch.device,
    *,
    embeddings: bool = False,
    on_batch: Callable[[int], None] | None = None,
) -> Extraction:
    """Pass slices once through every network, without augmentation, and average over the recipe's views.

    Where memory runs out, fewer slices pass at a time: what is seen of a slice does not depend on the others.

    Args:
        model: M networks.
        recipe: whose windows, neighbours, calibration and ``tta`` apply.
        data: the slices.
        rows: N cache rows.
        device: where the networks lie.
        embeddings: also return the pooled features before the classifier.
        on_batch: called with the number of slices done so far.

    Returns:
        Probabilities in label order and embeddings, in the order of ``rows``; both are means over the views.

    Raises:
        NothingUsableError: memory does not even hold a single slice's pass.
    """
    for network in model.networks:
        network.eval()
    views = find_views(recipe.tta)
    p_MNL = np.empty((len(model.networks), len(rows), N_LABELS), dtype=np.float64)
    width = model.networks[0].get_classifier().in_features
    e_MND = np.empty((*p_MNL.shape[:2], width), np.float32) if embeddings else None
    found, done = Extraction(p_MNL, e_MND), 0
    n_batch = n_at_a_time = PREDICT_BATCH.get(device.type, PREDICT_BATCH["cpu"])
    for batch in data.in_order(rows, n_batch):
        see = partial(_see_part, model, recipe, views, pinned(batch, device), device, found, done)
        n_at_a_time = in_parts_that_fit(see, len(batch.rows), n_at_a_time, device)
        done += len(batch.rows)
        if on_batch is not None:
            on_batch(done)
    return found


def _see_part(
    model: FoldModel,
    recipe: Recipe,
    views: Sequence[View],
    batch: DeviceBatch,
    device: torch.device,
    found: Extraction,
    n_before: int,
    start: int,
    stop: int,
) -> None:
    """Pass slices ``start`` to ``stop`` of a batch, before which ``n_before`` were done, and put down what is seen."""
    on_device = to_device(batch.part(start, stop), device)
    place = slice(n_before + start, n_before + stop)
    for m, network in enumerate(model.networks):
        p_BL, e_BD = _seen(network, recipe, on_device, views, device)
        found.p_MNL[m, place] = p_BL.cpu().numpy()
        if found.e_MND is not None:
            found.e_MND[m, place] = e_BD.cpu().numpy()


def _seen(
    network: Network, recipe: Recipe, batch: DeviceBatch, views: Sequence[View], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean probabilities (B, L) and embeddings (B, D) over the views."""
    seen = []
    for view in views:
        x_BCHW = network.inputs(view(batch.hu_BSHW), batch.own_B2)  # in full precision: places and HU are no weights
        with autocast(device):
            e_BD = network.embed(x_BCHW)
            logits_BK = network.answer(e_BD)
        logits_BL = undo_prior_shift(logits_BK[:, :N_LABELS], recipe)
        seen.append((torch.sigmoid(logits_BL), e_BD.float()))
    if len(seen) == 1:
        return seen[0]
    p_VBL, e_VBD = zip(*seen, strict=True)
    return torch.stack(p_VBL).mean(dim=0), torch.stack(e_VBD).mean(dim=0)


def predict_rows(
    model: FoldModel,
    recipe: Recipe,
    data: SliceBatches,
    rows: np.ndarray,
    device: torch.device,
    on_batch: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Predict slices in the order of ``rows``: float64 (N, L), the mean over the model's networks."""
    return extract(model, recipe, data, rows, device, on_batch=on_batch).p_MNL.mean(axis=0)


def save_model(
    path: Path, states: Sequence[Mapping[str, torch.Tensor]], recipe: Recipe, about: Mapping[str, Any], **sidecar: Any
) -> None:
    """Write the weights of a fold's networks, with a sidecar that says what they are and what they have seen.

    Args:
        path: ``.safetensors``; the sidecar lies beside it as ``.json``.
        states: the state dict of each network.
        recipe: what was done.
        about: fold, plan and other facts, kept in both files.
        sidecar: facts that are kept in the sidecar only, such as the patients that were learnt from.
    """
    tensors = {k: v for n, state in enumerate(states) for k, v in with_prefix(f"network{n}", state).items()}
    header = {"kind": "weights", "recipe": recipe.to_dict(), "n_networks": len(states), **about}
    save_checkpoint(path, tensors, header, sidecar)


def load_model(path: Path, device: torch.device) -> tuple[FoldModel, Recipe]:
    """Load a trained fold model and its recipe from its weights file.

    Raises:
        DataError: no such file, or not weights that ichtune wrote.
    """
    tensors, about = load_checkpoint(path, "weights")
    recipe = Recipe.from_dict(about["recipe"])
    bare = replace(recipe, pretrained=False)
    networks = []
    try:
        for n in range(int(about["n_networks"])):
            network = create_network(bare)
            network.load_state_dict(without_prefix(f"network{n}", tensors))
            networks.append(network.to(device).to(memory_format=torch.channels_last).eval())
    except (RuntimeError, LookupError) as error:
        raise DataError(f"{path} does not hold the weights of its recipe ({recipe.summary}): {error}") from error
    return FoldModel(tuple(networks)), recipe
