"""A convolutional network small enough to search over on two CPU cores.

Dimension key: B batch, C channels, H height, W width, L labels.
"""

import torch
from torch import nn


class TinyConvNet(nn.Module):
    """Four convolution blocks, then average and maximum pooling side by side.

    Maximum pooling matters: a bleed fills few of a slice's pixels, and an average hides it.

    Args:
        in_chans: input channels.
        num_classes: outputs, logits.
        width: channels of the first block; each later block has twice those of the one before, at most 4 * width.
        drop_rate: dropout before the classifier.
    """

    def __init__(self, in_chans: int, num_classes: int, width: int = 8, drop_rate: float = 0.0) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        strides = [2, 2, 2, 1]
        blocks: list[nn.Module] = []
        previous = in_chans
        for out, stride in zip(widths, strides, strict=True):
            blocks += [
                nn.Conv2d(previous, out, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            ]
            previous = out
        self.features = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(drop_rate)
        self.classifier = nn.Linear(2 * previous, num_classes)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return logits (B, L)."""
        features_BCHW = self.features(x_BCHW)
        average_BC = features_BCHW.mean(dim=(2, 3))
        maximum_BC = features_BCHW.amax(dim=(2, 3))
        logits_BL: torch.Tensor = self.classifier(self.dropout(torch.cat([average_BC, maximum_BC], dim=1)))
        return logits_BL
