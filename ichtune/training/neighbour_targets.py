"""Targets of the adjacent slices, when the order of the slices was reversed.

Dimension key: B batch, L labels, K targets: L of the slice itself, then L of the slice below and L of that above.
"""

import torch

from ichtune.labels import N_LABELS


def exchange_reversed(
    y_BK: torch.Tensor, weight_BK: torch.Tensor, reversed_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exchange the targets of the slice below and of that above where a slice's neighbours were reversed.

    Args:
        y_BK: targets.
        weight_BK: their weights.
        reversed_B: bool, which slices were seen with their neighbours in reverse order.

    Returns:
        Both, new tensors where there is anything to exchange.
    """
    if y_BK.shape[1] == N_LABELS:
        return y_BK, weight_BK
    order = torch.arange(y_BK.shape[1], device=y_BK.device)
    order = torch.cat([order[:N_LABELS], order[2 * N_LABELS :], order[N_LABELS : 2 * N_LABELS]])
    mask_B1 = reversed_B.to(y_BK.device)[:, None]
    return torch.where(mask_B1, y_BK[:, order], y_BK), torch.where(mask_B1, weight_BK[:, order], weight_BK)
