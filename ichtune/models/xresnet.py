"""xresnet50: ResNet-50 with a deep stem, averaged shortcuts and Mish, and with simple self-attention where wanted.

Dimension key: B batch, C channels, N positions of the flattened features, H height, W width.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from ichtune.models.backbone import Backbone

#: Channels of the stem's three convolutions.
STEM = (32, 64, 64)
#: Bottleneck blocks of each stage.
DEPTHS = (3, 4, 6, 3)
#: Channels inside the blocks of each stage; each block gives EXPANSION times as many.
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4


class Symmetric(nn.Module):
    """Parametrisation of a square weight: the mean of the matrix and its transpose."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the symmetric part of (C, C, ...)."""
        return (weight + weight.transpose(0, 1)) / 2

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a weight whose symmetric part is the given symmetric one: itself."""
        return weight


class SimpleSelfAttention(nn.Module):
    """Adds to features x (C, N) their self-attention ``gamma (x x^T) (W x)``, linear in the number of positions.

    Multiplied as ``((x x^T) W) x`` it costs 2 C^2 N + C^3 operations. ``x (x^T (W x))``, which is the same, would cost
    more than 2 C N^2: at 56x56 positions and 256 channels twelve times as many. ``gamma`` starts at 0, so that an
    untrained layer does nothing. The largest singular value of W is kept at 1.

    ``symmetric`` is what the seed meant and did not do: it wrote the symmetric part of the normalised W into the layer,
    where torch's spectral norm puts a W computed anew from the raw weight before it is used. Here the raw weight is
    made symmetric first, and then normalised.

    Args:
        channels: channels C of the features.
        symmetric: use the symmetric part of W, so that attention is the same from i to j as from j to i.

    Source: Doria, SimpleSelfAttention (2019), after Zhang et al., Self-Attention GANs, ICML 2019, section 3.
    """

    def __init__(self, channels: int, symmetric: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight)
        if symmetric:
            parametrize.register_parametrization(self.conv, "weight", Symmetric())
        parametrizations.spectral_norm(self.conv)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return features of the shape of those given."""
        x_BNC = x_BCHW.flatten(2).transpose(1, 2)  # contiguous where the features are channels_last
        gram_BCC = torch.bmm(x_BNC.transpose(1, 2), x_BNC)
        map_BCC = torch.matmul(gram_BCC, self.conv.weight[:, :, 0])
        attended_BCN = torch.bmm(x_BNC, map_BCC.transpose(1, 2)).transpose(1, 2)
        gamma = self.gamma.to(attended_BCN.dtype)
        return x_BCHW + gamma * attended_BCN.unflatten(2, x_BCHW.shape[2:])


def _convolution(ins: int, outs: int, kernel: int = 1, stride: int = 1, *, mish: bool = True) -> nn.Sequential:
    # Without torch's own initialisation, of which nothing would be left.
    convolution = nn.utils.skip_init(nn.Conv2d, ins, outs, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight)
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(outs)]
    return nn.Sequential(*layers, nn.Mish()) if mish else nn.Sequential(*layers)


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut; the last batch norm starts at 0, so that a block starts as its shortcut.

    Args:
        ins: input channels.
        width: channels inside; the block gives ``EXPANSION`` times as many.
        stride: of the middle convolution; the shortcut averages instead, and loses no pixel.
        attention: what follows the convolutions.

    Source: He et al., Bag of Tricks for Image Classification, CVPR 2019, section 4.1 (ResNet-D) and 3.1 (zero gamma).
    """

    def __init__(self, ins: int, width: int, stride: int = 1, attention: nn.Module | None = None) -> None:
        super().__init__()
        outs = width * EXPANSION
        self.convolutions = nn.Sequential(
            _convolution(ins, width), _convolution(width, width, 3, stride), _convolution(width, outs, mish=False)
        )
        nn.init.zeros_(self.convolutions[-1][1].weight)  # type: ignore[index]
        self.attention = attention or nn.Identity()
        shortcut: list[nn.Module] = []
        if stride != 1:
            shortcut.append(nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False))
        if ins != outs:
            shortcut.append(_convolution(ins, outs, mish=False))
        self.shortcut = nn.Sequential(*shortcut)
        self.mish = nn.Mish()

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return features with ``EXPANSION * width`` channels, smaller by the stride."""
        y_BCHW: torch.Tensor = self.mish(self.attention(self.convolutions(x_BCHW)) + self.shortcut(x_BCHW))
        return y_BCHW


class XResNet(Backbone):
    """The seed's network: xresnet50 with Mish and, where wanted, attention in the last block of the first stage.

    The stem's widths are the seed's; ResNet-D has 32, 32, 64. What it computes differs from the seed in ``symmetric``
    only: see ``SimpleSelfAttention``.

    Args:
        in_chans: input channels.
        num_classes: outputs, logits; 0 leaves the linear layer out.
        drop_rate: dropout before the classifier.
        attention: put simple self-attention in.
        symmetric: the attention's weight is symmetric.

    Source: He et al., Bag of Tricks for Image Classification, CVPR 2019; Misra, Mish, BMVC 2020.
    """

    def __init__(
        self,
        in_chans: int,
        num_classes: int,
        drop_rate: float = 0.0,
        *,
        attention: bool = False,
        symmetric: bool = False,
    ) -> None:
        stem = [_convolution(in_chans, STEM[0], 3, 2), *(_convolution(STEM[i - 1], STEM[i], 3) for i in (1, 2))]
        stages: list[nn.Module] = []
        ins = STEM[-1]
        for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
            blocks = []
            for block in range(depth):
                attends = attention and stage == 0 and block == depth - 1
                layer = SimpleSelfAttention(width * EXPANSION, symmetric) if attends else None
                blocks.append(Bottleneck(ins, width, 2 if stage and not block else 1, layer))
                ins = width * EXPANSION
            stages.append(nn.Sequential(*blocks))
        named = OrderedDict(stem=nn.Sequential(*stem), pool=nn.MaxPool2d(3, 2, 1), stages=nn.Sequential(*stages))
        super().__init__(
            nn.Sequential(named),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            num_features=ins,
            head_hidden_size=ins,
            num_classes=num_classes,
            drop_rate=drop_rate,
            first_conv="features.stem.0.0",
            own_px=224,
        )

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return regular expressions of parameter names: the stem, then each stage or each block."""
        return {
            "stem": r"^features\.stem",
            "blocks": r"^features\.stages\.(\d+)" if coarse else r"^features\.stages\.(\d+)\.(\d+)",
        }
