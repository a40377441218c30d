"""Mixup and cutmix: two slices become one, and so do their labels.

Dimension key: B batch, C input channels, H height, W width, K targets.
"""

import math

import numpy as np
import torch

from ichtune.recipe import Recipe

#: The stream of random numbers that mixing takes from a batch's seed, away from those of augmentation.
_STREAM = 17


def mix(
    x_BCHW: torch.Tensor, y_BK: torch.Tensor, weight_BK: torch.Tensor, recipe: Recipe, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mix each slice of a training batch with another one, in one share for the whole batch.

    With ``mixup`` and ``cutmix`` both above 0 each acts on half the batches. Labels and weights are mixed so that the
    weighted cross-entropy of the result is exactly the mixed cross-entropy of the two: a slice whose label is unknown
    (weight 0) lends its pixels, and its share of the loss is missing.

    Args:
        x_BCHW: network input; never changed.
        y_BK: labels in [0, 1].
        weight_BK: weights of the labels, at least 0.
        recipe: whose ``mixup`` and ``cutmix`` count, the alphas of Beta distributions; 0 does nothing.
        seed: seed of this batch, at least 0.

    Returns:
        Input, labels and weights, shaped and laid out as they came; they themselves where nothing is mixed.

    Source: Zhang et al., mixup, ICLR 2018; Yun et al., CutMix, ICCV 2019.
    """
    rng = np.random.default_rng([seed, _STREAM])
    share_of_cutmix = 0.5 if recipe.mixup and recipe.cutmix else float(recipe.cutmix > 0)
    is_cutmix = bool(rng.random() < share_of_cutmix)
    alpha = recipe.cutmix if is_cutmix else recipe.mixup
    if alpha == 0:
        return x_BCHW, y_BK, weight_BK
    partner_B = torch.from_numpy(rng.permutation(len(x_BCHW))).to(x_BCHW.device)
    lam = float(rng.beta(alpha, alpha))
    if is_cutmix:
        x_BCHW, lam = _paste(x_BCHW, partner_B, lam, rng)
    else:
        x_BCHW = torch.lerp(x_BCHW[partner_B], x_BCHW, lam)
    return x_BCHW, *_mix_labels(y_BK, weight_BK, partner_B, lam)


def _paste(
    x_BCHW: torch.Tensor, partner_B: torch.Tensor, lam: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Copy a box of the partner into each slice; return what share of the pixels stayed."""
    height, width = x_BCHW.shape[-2:]
    side = math.sqrt(1.0 - lam)
    top, bottom = _stretch(height, side, rng)
    left, right = _stretch(width, side, rng)
    out = x_BCHW.clone()
    out[:, :, top:bottom, left:right] = x_BCHW[partner_B, :, top:bottom, left:right]
    return out, 1.0 - (bottom - top) * (right - left) / (height * width)


def _stretch(n: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """A stretch of that share of n pixels with its middle anywhere, cut off at the ends."""
    length, middle = int(n * share), int(rng.integers(n))
    return max(middle - length // 2, 0), min(middle - length // 2 + length, n)


def _mix_labels(
    y_BK: torch.Tensor, weight_BK: torch.Tensor, partner_B: torch.Tensor, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    own_BK, other_BK = lam * weight_BK, (1.0 - lam) * weight_BK[partner_B]
    mixed_BK = own_BK + other_BK
    # a label without weight may be anything, even NaN
    known_BK = torch.where(weight_BK > 0, y_BK, 0.0)
    sum_BK = own_BK * known_BK + other_BK * known_BK[partner_B]
    return torch.where(mixed_BK > 0, sum_BK / mixed_BK, 0.0), mixed_BK
