"""Back from the probabilities of a reweighted, resampled training set to those of the slices as they come.

Dimension key: B batch, L labels in the order of ``ichtune.labels.LABELS``.
"""

import math

import torch
from torch.nn.functional import logsigmoid

from ichtune.labels import ANY, LABELS
from ichtune.recipe import Recipe

_ANY = LABELS.index(ANY)


def undo_prior_shift(logits_BL: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Undo what ``positive_weights`` and ``negative_share`` do to a network that fits what it is trained on.

    A positive weight w multiplies the odds of its label by w. Of the slices without a bleed a share q is drawn, which
    divides the odds of ``any`` by q; of the slices with a bleed all are drawn, so that the probability of each subtype
    given a bleed is as it was: its probability shrinks by the factor by which that of ``any`` does. A subtype that was
    more probable than ``any`` becomes just as probable.

    Args:
        logits_BL: logits as the network gives them, (B, L).
        recipe: whose ``calibration`` says whether anything is undone.

    Returns:
        Logits (B, L) float64 in label order; the same values where nothing was shifted.

    Source: Saerens et al., Adjusting the Outputs of a Classifier to New a Priori Probabilities, Neural Computation
    2002, here for labels of which one holds the others.
    """
    z_BL = logits_BL.double()
    if recipe.calibration != "prior_shift":
        return z_BL
    z_BL = z_BL - torch.tensor(recipe.positive_weights, dtype=torch.float64, device=z_BL.device).log()
    if recipe.negative_share == 1.0:
        return z_BL
    any_B1 = z_BL[:, _ANY, None] + math.log(recipe.negative_share)
    shrunk_B1 = logsigmoid(any_B1) - logsigmoid(z_BL[:, _ANY, None])
    log_p_BL = logsigmoid(z_BL) + shrunk_B1
    out_BL = torch.minimum(log_p_BL - torch.log(-torch.expm1(log_p_BL)), any_B1)
    out_BL[:, _ANY] = any_B1[:, 0]
    return out_BL
