"""LOSSES: training losses on logits, element by element; weights and their mean come after.

Dimension key: B batch, K outputs (the labels of the slice, and of its neighbours where they are targets too).
"""

from collections.abc import Callable

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ichtune.errors import ConfigError, nearest
from ichtune.recipe import Recipe

#: Maps logits_BK, labels y_BK in [0, 1] and the recipe to losses_BK in nats, float32.
Loss = Callable[[torch.Tensor, torch.Tensor, Recipe], torch.Tensor]

#: Below it |y - p| is rounding, and its powers below 1 would have a slope without bound.
_SMALLEST_DOUBT = 1e-6


def bce(logits_BK: torch.Tensor, y_BK: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Binary cross-entropy.

    Weighted as the metric is, its mean is the metric itself (before its clipping), not a rescaled relative of it.
    """
    return binary_cross_entropy_with_logits(logits_BK.float(), y_BK, reduction="none")


def focal(logits_BK: torch.Tensor, y_BK: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Cross-entropy times |y - p| to the power of ``focal_gamma``: what is nearly right counts less.

    For labels of 0 and 1, |y - p| is the probability of the wrong answer, and this is the focal loss; between them,
    where the wrong answer has no one probability, it still is least where p is y. Its probabilities are not calibrated;
    the blend must mend that.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017; for soft labels Li et al., Generalized Focal
    Loss, NeurIPS 2020.
    """
    z_BK = logits_BK.float()
    # y - p without its cancellation where p rounds to 1
    doubt_BK = (y_BK * torch.sigmoid(-z_BK) - (1.0 - y_BK) * torch.sigmoid(z_BK)).abs()
    return doubt_BK.clamp(min=_SMALLEST_DOUBT) ** recipe.focal_gamma * bce(logits_BK, y_BK, recipe)


#: Losses by name.
LOSSES: dict[str, Loss] = {"bce": bce, "focal": focal}


def find_loss(name: str) -> Loss:
    """Return a loss by name; ``ConfigError`` with the nearest one otherwise."""
    if name not in LOSSES:
        raise ConfigError(f"unknown loss {name!r}. {nearest(name, LOSSES)}")
    return LOSSES[name]


def reduce_loss(losses_BK: torch.Tensor, weight_BK: torch.Tensor) -> torch.Tensor:
    """Return the scalar to descend: the weighted sum over outputs, mean over slices.

    Args:
        losses_BK: what a loss returned.
        weight_BK: weight of each; those of a labelled slice's own labels sum to 1.
    """
    return (losses_BK * weight_BK).sum() / len(losses_BK)
