"""LOSSES: training losses on logits, weighted over labels as the metric is.

Dimension key: B batch, L labels.
"""

from collections.abc import Callable

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ichtune.errors import ConfigError, nearest

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def bce(logits_BL: torch.Tensor, y_BL: torch.Tensor, weights_L: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy, weighted mean over labels, mean over slices.

    With the metric's weights this is the metric itself (before its clipping), not a rescaled relative of it.

    Args:
        logits_BL: (B, L).
        y_BL: labels in [0, 1], (B, L).
        weights_L: weights in label order; their sum divides.

    Returns:
        A scalar, in nats.
    """
    losses_BL = binary_cross_entropy_with_logits(logits_BL.float(), y_BL, reduction="none")
    return (losses_BL @ (weights_L / weights_L.sum())).mean()


def focal(logits_BL: torch.Tensor, y_BL: torch.Tensor, weights_L: torch.Tensor) -> torch.Tensor:
    """Focal loss with gamma 1: easy slices count less. Its probabilities are not calibrated; the blend must mend that.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """
    losses_BL = binary_cross_entropy_with_logits(logits_BL.float(), y_BL, reduction="none")
    p_true_BL = torch.exp(-losses_BL)
    return (((1.0 - p_true_BL) * losses_BL) @ (weights_L / weights_L.sum())).mean()


#: Losses by name.
LOSSES: dict[str, Loss] = {"bce": bce, "focal": focal}


def find_loss(name: str) -> Loss:
    """Return a loss by name; ``ConfigError`` with the nearest one otherwise."""
    if name not in LOSSES:
        raise ConfigError(f"unknown loss {name!r}. {nearest(name, LOSSES)}")
    return LOSSES[name]
