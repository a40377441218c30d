"""A convolutional network small enough to search over on two CPU cores.

Dimension key: B batch, C channels, H height, W width, L labels.
"""

import torch
from torch import nn

#: Side of the grid of cells that are pooled apart: where in the head a bleed lies tells the subtypes apart.
GRID = 2


class TinyConvNet(nn.Module):
    """Three convolution blocks, maximum pooling over a coarse grid, one linear layer.

    Maximum pooling matters: a bleed fills few of a slice's pixels, and an average hides it.

    Args:
        in_chans: input channels.
        num_classes: outputs, logits.
        width: channels of the first block; each later block has twice those of the one before.
        drop_rate: dropout before the classifier.
    """

    def __init__(self, in_chans: int, num_classes: int, width: int = 8, drop_rate: float = 0.0) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        previous = in_chans
        for out, stride in zip((width, 2 * width, 4 * width), (2, 2, 1), strict=True):
            convolution = nn.Conv2d(previous, out, 3, stride=stride, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            previous = out
        self.features = nn.Sequential(*blocks, nn.AdaptiveMaxPool2d(GRID), nn.Flatten())
        self.dropout = nn.Dropout(drop_rate)
        self.classifier = nn.Linear(previous * GRID * GRID, num_classes)

    def get_classifier(self) -> nn.Linear:
        """Return the last layer, by the name that timm's models give it."""
        return self.classifier

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return logits (B, L)."""
        logits_BL: torch.Tensor = self.classifier(self.dropout(self.features(x_BCHW)))
        return logits_BL
