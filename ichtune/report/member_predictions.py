"""What each member of an ensemble predicts of new slices: its networks, then the second levels that see their answers.

Dimension key: M members, F fold models, T new slices, L labels.
"""

from collections.abc import Callable

import numpy as np
import torch

from ichtune.data.dataset import SliceBatches
from ichtune.ensemble.blenders.equal_mean_logit import mean_of_logits
from ichtune.labels import N_LABELS
from ichtune.report.fold_ensemble import FoldEnsemble, NetworkMember
from ichtune.report.stacked_models import StackedModels
from ichtune.training.devices import best_device
from ichtune.training.fold_run import open_batches
from ichtune.training.predict import Extraction, extract, load_model
from ichtune.workspace import Workspace

#: Told how many fold models are done, and how many there are.
OnStep = Callable[[int, int], None]


def member_predictions(
    ensemble: FoldEnsemble, new: Workspace, rows: np.ndarray, on_step: OnStep | None = None
) -> np.ndarray:
    """Return each member's mean over its fold models in log odds, float64 (M, T, L).

    Networks are in memory one at a time; the models of the second level, which are small, are read first, so that one
    that cannot be used is known before hours of work.

    Args:
        ensemble: members and models.
        new: a workspace with the slices, prepared for every network.
        rows: T rows of its SliceTable, of whole series.
        on_step: see ``OnStep``.

    Raises:
        DataError: weights that are none, or of another recipe.
        ConfigError: a second level needs a package that is not installed.
    """
    stacks = {member.recipe_id: member.load() for member in ensemble.stacked}
    progress = _Progress(len(ensemble.weights), on_step)
    p_of: dict[str, np.ndarray] = {}
    for network in ensemble.networks:
        readers = [stack for stack in stacks.values() if network.recipe_id in stack.embedded]
        p_of[network.recipe_id] = _network_predictions(network, new, rows, readers, progress)
    slices = new.slices.loc[rows]
    p_MTL = np.empty((len(ensemble.members), len(rows), N_LABELS))
    for m, member in enumerate(ensemble.members):
        if isinstance(member, NetworkMember):
            p_MTL[m] = mean_of_logits(p_of[member.recipe_id])
        else:
            p_MTL[m] = stacks[member.recipe_id].predict(slices, p_of)
            progress.add(len(member.folds))
    return p_MTL


class _Progress:
    def __init__(self, total: int, on_step: OnStep | None) -> None:
        self._total, self._on_step, self._done = total, on_step, 0

    def add(self, n: int) -> None:
        self._done += n
        if self._on_step is not None:
            self._on_step(self._done, self._total)


def _network_predictions(
    member: NetworkMember, new: Workspace, rows: np.ndarray, readers: list[StackedModels], progress: _Progress
) -> np.ndarray:
    """Return what each fold model predicts (F, T, L), and give those who ask for them its embeddings."""
    data, device = open_batches(new, member.recipe), best_device()
    p_FTL = np.empty((len(member.folds), len(rows), N_LABELS))
    for f in range(len(member.folds)):
        found = _seen(member, f, data, rows, device, bool(readers))
        p_FTL[f] = found.p_MNL.mean(axis=0)
        if found.e_MND is not None:
            for stack in readers:
                stack.take(member.recipe_id, f, found.e_MND)
        progress.add(1)
    return p_FTL


def _seen(
    member: NetworkMember, f: int, data: SliceBatches, rows: np.ndarray, device: torch.device, embeddings: bool
) -> Extraction:
    """Pass the slices through one fold model; it is gone before the next one is loaded."""
    model, recipe = load_model(member.folds[f].path, device)
    return extract(model, recipe, data, rows, device, embeddings=embeddings)
