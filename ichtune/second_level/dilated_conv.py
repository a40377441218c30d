"""DilatedConv: residual convolutions along the series whose taps lie ever further apart.

Dimension key: B series, T slices of the longest, H hidden.
"""

import torch
from torch import nn
from torch.nn.functional import gelu

from ichtune.second_level.sequence_network import SequenceBody
from ichtune.second_level.sequences import SequenceModel

#: Slices between the taps of one layer after the other, from the start again.
DILATIONS = (1, 2, 4)


class DilatedConv(SequenceModel):
    """Each slice sees its neighbours at distances that grow with the layers.

    Source: Bai, Kolter and Koltun, An empirical evaluation of generic convolutional and recurrent networks for sequence
    modeling, 2018; here without causality, since a series is known as a whole.
    """

    def body(self) -> SequenceBody:
        """Return ``layers`` blocks, ``hidden`` channels wide."""
        recipe = self.recipe
        blocks = (_Block(recipe.hidden, DILATIONS[i % len(DILATIONS)], recipe.dropout) for i in range(recipe.layers))
        return DilatedBody(list(blocks))


class DilatedBody(SequenceBody):
    """Blocks one after the other."""

    def __init__(self, blocks: list["_Block"]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, h_BTH: torch.Tensor, mask_BT: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """See ``SequenceBody``."""
        for block in self.blocks:
            h_BTH = block(h_BTH, mask_BT)
        return h_BTH


class _Block(nn.Module):
    """Norm, a dilated convolution of three taps, a mix of channels; added to what went in."""

    def __init__(self, hidden: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.along = nn.Conv1d(hidden, hidden, kernel_size=3, padding=dilation, dilation=dilation)
        self.across = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h_BTH: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        # padding is made what lies beyond a series' end: zeros
        inside_BTH = self.norm(h_BTH).masked_fill(~mask_BT[..., None], 0.0)
        seen_BTH = self.along(inside_BTH.transpose(1, 2)).transpose(1, 2)
        mixed_BTH: torch.Tensor = h_BTH + self.across(self.dropout(gelu(seen_BTH)))
        return mixed_BTH
