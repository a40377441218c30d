"""Recurrent: bidirectional GRU or LSTM layers, each added to what went in.

Dimension key: B series, T slices of the longest, N slices of all, H hidden.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ichtune.second_level.sequence_network import SequenceBody
from ichtune.second_level.sequences import SequenceModel

_CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(SequenceModel):
    """A state that is carried along the series in both directions.

    Source: Schuster and Paliwal, Bidirectional recurrent neural networks, 1997; GRU: Cho et al., 2014; LSTM: Hochreiter
    and Schmidhuber, 1997.
    """

    def body(self) -> SequenceBody:
        """Return ``layers`` layers, each way ``hidden`` wide."""
        recipe = self.recipe
        return RecurrentBody(_CELLS[recipe.model], recipe.hidden, recipe.layers, recipe.dropout)


class RecurrentBody(SequenceBody):
    """Layers on packed series, so that padding is never walked over; the two directions are added up."""

    def __init__(self, cell: type[nn.GRU] | type[nn.LSTM], hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.layers = nn.ModuleList(cell(hidden, hidden, batch_first=True, bidirectional=True) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h_BTH: torch.Tensor, mask_BT: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """See ``SequenceBody``."""
        packed = pack_padded_sequence(h_BTH, lengths_B, batch_first=True, enforce_sorted=False)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            both_N2H = layer(packed._replace(data=norm(packed.data)))[0].data
            forwards_NH, backwards_NH = both_N2H.chunk(2, dim=-1)
            packed = _with(packed, packed.data + self.dropout(forwards_NH + backwards_NH))
        return pad_packed_sequence(packed, batch_first=True, total_length=h_BTH.shape[1])[0]


def _with(packed: PackedSequence, data_NH: torch.Tensor) -> PackedSequence:
    return packed._replace(data=data_NH)
