"""From a batch of raw HU to probabilities: the one path that training, validation and prediction share.

Dimension key: B batch, C channels, H height, W width, L labels, N slices.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ichtune.data.dataset import SliceBatches
from ichtune.labels import N_LABELS
from ichtune.models.create import create_model
from ichtune.recipe import Recipe
from ichtune.training.checkpoint import load_checkpoint
from ichtune.windows import apply_windows

#: Slices a batch when nothing is learnt, by device: small ones stay in a CPU's cache.
PREDICT_BATCH = {"cuda": 256, "cpu": 64}


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return bfloat16 autocast on a CUDA device that supports it, and full precision elsewhere (faster on CPUs)."""
    enabled = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def to_input(hu_BCHW: np.ndarray, recipe: Recipe, device: torch.device) -> torch.Tensor:
    """Move raw HU to the device and apply the recipe's windows there: float32 (B, n_channels, H, W) in [-1, 1]."""
    hu = torch.from_numpy(hu_BCHW).to(device, non_blocking=True)
    return apply_windows(hu, recipe.windows).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def predict_rows(
    model: nn.Module,
    recipe: Recipe,
    data: SliceBatches,
    rows: np.ndarray,
    device: torch.device,
    on_batch: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Predict slices in the order of ``rows``, without augmentation.

    Args:
        model: maps (B, n_channels, H, W) to logits (B, L).
        recipe: whose windows and neighbours apply.
        data: the slices.
        rows: N cache rows.
        device: where the model lies.
        on_batch: called with the number of slices done so far.

    Returns:
        float64 (N, L) probabilities in label order.
    """
    model.eval()
    p_NL = np.empty((len(rows), N_LABELS), dtype=np.float64)
    done = 0
    for batch in data.in_order(rows, PREDICT_BATCH.get(device.type, PREDICT_BATCH["cpu"])):
        with autocast(device):
            logits_BL = model(to_input(batch.hu_BCHW, recipe, device))
        p_NL[done : done + len(batch.rows)] = torch.sigmoid(logits_BL.double()).cpu().numpy()
        done += len(batch.rows)
        if on_batch is not None:
            on_batch(done)
    return p_NL


def load_model(path: Path, device: torch.device) -> tuple[nn.Module, Recipe]:
    """Load a trained fold model and its recipe from its weights file.

    Raises:
        DataError: no such file, or not weights that ichtune wrote.
    """
    tensors, about = load_checkpoint(path, "weights")
    recipe = Recipe.from_dict(about["recipe"])
    model = create_model(recipe.architecture, recipe.n_channels, image_px=recipe.image_px, dropout=recipe.dropout)
    model.load_state_dict(tensors)
    return model.to(device).to(memory_format=torch.channels_last).eval(), recipe
