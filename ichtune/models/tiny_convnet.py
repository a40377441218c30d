"""A convolutional network small enough to search over on two CPU cores.

Dimension key: B batch, C channels, H height, W width, G cells of the grid.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import adaptive_max_pool2d

from ichtune.models.backbone import Backbone

#: Side of the grid of cells that are pooled apart: where in the head a bleed lies tells the subtypes apart.
GRID = 2


class GridMaximum(nn.Module):
    """The maximum of each cell of a coarse grid.

    In a graph that is exported it is made of plain maxima, since torch 2.11 cannot write adaptive ones as ONNX. Their
    values are the same; their gradients, where several places hold the maximum, are not.
    """

    def forward(self, features_BCHW: torch.Tensor) -> torch.Tensor:
        """Return (B, C * G), row after row of the grid; cells of an odd side overlap by one."""
        if not torch.compiler.is_exporting():
            return adaptive_max_pool2d(features_BCHW, GRID).flatten(1)
        rows, columns = (_cells(side) for side in features_BCHW.shape[2:])
        cells = [features_BCHW[:, :, row, column].amax(dim=(2, 3)) for row in rows for column in columns]
        return torch.stack(cells, dim=2).flatten(1)


def _cells(side: int) -> list[slice]:
    """Where the cells of a side begin and end, as adaptive pooling has them."""
    return [slice(cell * side // GRID, -(-(cell + 1) * side // GRID)) for cell in range(GRID)]


class TinyConvNet(Backbone):
    """Three convolution blocks, maximum pooling over a coarse grid, one linear layer.

    Maximum pooling matters: a bleed fills few of a slice's pixels, and an average hides it.

    Args:
        in_chans: input channels.
        num_classes: outputs, logits; 0 leaves the linear layer out.
        width: channels of the first block; each later block has twice those of the one before.
        drop_rate: dropout before the classifier.
    """

    def __init__(self, in_chans: int, num_classes: int, width: int = 8, drop_rate: float = 0.0) -> None:
        blocks: list[nn.Module] = []
        previous = in_chans
        for out, stride in zip((width, 2 * width, 4 * width), (2, 2, 1), strict=True):
            convolution = nn.Conv2d(previous, out, 3, stride=stride, padding=1, bias=False)
            blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True)))
            previous = out
        super().__init__(
            nn.Sequential(*blocks),
            GridMaximum(),
            num_features=previous,
            head_hidden_size=previous * GRID * GRID,
            num_classes=num_classes,
            drop_rate=drop_rate,
            first_conv="features.0.0",
            own_px=64,
        )

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return regular expressions of parameter names; each block is a layer."""
        return {"stem": r"^features\.0\.", "blocks": r"^features\.(\d+)\."}
