"""Transformer: pre-norm self-attention along the series that knows how far apart two slices are.

Dimension key: B series, T slices of the longest, H hidden, A attention heads, W width of a head.
"""

import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from ichtune.second_level.sequence_network import SequenceBody
from ichtune.second_level.sequences import SequenceModel

#: Distances, in slices, beyond which all are alike.
MAX_DISTANCE = 16
#: Width of the layer between, as a multiple of ``hidden``.
_WIDENING = 2


class Transformer(SequenceModel):
    """Each slice asks all others of its series.

    Source: Vaswani et al., Attention is all you need, 2017; norms first as in Xiong et al., 2020.
    """

    def body(self) -> SequenceBody:
        """Return ``layers`` layers of ``heads`` heads."""
        recipe = self.recipe
        return AttentionBody(recipe.hidden, recipe.heads, recipe.layers, recipe.dropout)


class AttentionBody(SequenceBody):
    """Layers of attention, padding masked out."""

    def __init__(self, hidden: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(hidden, heads, dropout) for _ in range(layers))

    def forward(self, h_BTH: torch.Tensor, mask_BT: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """See ``SequenceBody``."""
        for layer in self.layers:
            h_BTH = layer(h_BTH, mask_BT)
        return h_BTH


class _Layer(nn.Module):
    """Attention with a learnt bias for each signed distance, then a small network for each slice alone.

    The biases start as a slope for each head that makes far slices count less: near ones are what matters, and a few
    epochs are too short to find that out.

    Source: Shaw et al., Self-attention with relative position representations, 2018; slopes: Press et al., Train short,
    test long, 2022.
    """

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_alone = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.ask = nn.Linear(hidden, 3 * hidden)
        self.answer = nn.Linear(hidden, hidden)
        self.widen = nn.Linear(hidden, _WIDENING * hidden)
        self.narrow = nn.Linear(_WIDENING * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        distance = torch.arange(-MAX_DISTANCE, MAX_DISTANCE + 1).abs()
        slope_A = 2.0 ** -torch.arange(heads)
        self.distance_bias = nn.Parameter(-slope_A[:, None] * distance)

    def forward(self, h_BTH: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        h_BTH = h_BTH + self.dropout(self.answer(self._attended(self.norm_attention(h_BTH), mask_BT)))
        alone_BTH: torch.Tensor = self.narrow(self.dropout(gelu(self.widen(self.norm_alone(h_BTH)))))
        return h_BTH + self.dropout(alone_BTH)

    def _attended(self, h_BTH: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.ask(h_BTH).chunk(3, dim=-1)
        )
        place_T = torch.arange(h_BTH.shape[1], device=h_BTH.device)
        distance_TT = (place_T - place_T[:, None]).clamp(-MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE
        bias_BATT = self.distance_bias[:, distance_TT].masked_fill(~mask_BT[:, None, None, :], float("-inf"))
        seen_BATW = scaled_dot_product_attention(query, key, value, attn_mask=bias_BATT)
        return seen_BATW.transpose(1, 2).flatten(2)
