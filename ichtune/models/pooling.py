"""Poolings, which make one vector of a network's features, and the classifier on top of any network.

Dimension key: B batch, C channels, H height, W width, P positions, D embedding, K outputs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

#: Exponent that generalised-mean pooling starts from, and the value below which a feature counts as this value.
GEM_START = 3.0
GEM_LEAST = 1e-6


def average(features_BPC: torch.Tensor) -> torch.Tensor:
    """Return the mean over positions, (B, C)."""
    return features_BPC.mean(dim=1)


def maximum(features_BPC: torch.Tensor) -> torch.Tensor:
    """Return the maximum over positions, (B, C)."""
    return features_BPC.amax(dim=1)


def average_and_maximum(features_BPC: torch.Tensor) -> torch.Tensor:
    """Return the mean and then the maximum over positions, (B, 2C)."""
    return torch.cat([average(features_BPC), maximum(features_BPC)], dim=1)


class GeneralisedMean(nn.Module):
    """The mean over positions of the p-th power, to the power of 1/p, with p learnt from 3.

    It lies between the average (p = 1) and the maximum (p large). A power of p needs features that are not negative,
    such as those after a ReLU. Networks that end in a layer norm (ConvNeXt, ViT, Swin) give signed ones: what is
    negative there counts as ``GEM_LEAST``, so that about half of the features have no say and no gradient.

    Source: Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2018, section 3.2.
    """

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), GEM_START))

    def forward(self, features_BPC: torch.Tensor) -> torch.Tensor:
        """Return (B, C), float32: a cube does not fit half precision."""
        powers_BPC = features_BPC.float().clamp(min=GEM_LEAST).pow(self.p)
        return powers_BPC.mean(dim=1).pow(1.0 / self.p)


class _Plain(nn.Module):
    def __init__(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.reduce = reduce

    def forward(self, features_BPC: torch.Tensor) -> torch.Tensor:
        return self.reduce(features_BPC)


#: Poolings by the name that ``recipe.pooling`` gives them; ``default`` is the network's own and not among them.
POOLS: dict[str, Callable[[], nn.Module]] = {
    "average": lambda: _Plain(average),
    "max": lambda: _Plain(maximum),
    "concat": lambda: _Plain(average_and_maximum),
    "gem": GeneralisedMean,
}


class FeaturePool(nn.Module):
    """One of ``POOLS`` on the features of any network: (B, C, H, W), (B, H, W, C) or tokens (B, P, C).

    Args:
        pooling: a key of ``POOLS``.
        channels_end: four-dimensional features end in their channels (Swin's do).
        n_prefix: tokens at the front that are no place of the image (class tokens, registers), which are left out.
    """

    def __init__(self, pooling: str, *, channels_end: bool = False, n_prefix: int = 0) -> None:
        super().__init__()
        self.reduce = POOLS[pooling]()
        self.channels_end = channels_end
        self.n_prefix = n_prefix

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, C), for ``concat`` (B, 2C)."""
        pooled_BD: torch.Tensor = self.reduce(self._positions(features))
        return pooled_BD

    def _positions(self, features: torch.Tensor) -> torch.Tensor:
        if features.ndim == 3:
            return features[:, self.n_prefix :]
        return features.flatten(1, 2) if self.channels_end else features.flatten(2).transpose(1, 2)


class ImageClassifier(nn.Module):
    """Any network without its last layer, a pooling, dropout and one linear layer, under timm's names.

    So every network, ours or timm's, has its classifier in one place, and features are at hand before dropout, which
    timm's own ``forward_head`` does not offer.

    Args:
        trunk: a network of timm, or a ``Backbone``, that was built for 0 classes.
        pool: maps what the trunk's head gives to (B, n_features).
        n_features: inputs of the linear layer, D.
        num_classes: outputs K.
        dropout: dropout before the linear layer.
        in_chans: input channels of the trunk.
        past_head: the pooling reads the trunk's features and not what its head makes of them.
    """

    def __init__(
        self,
        trunk: nn.Module,
        pool: nn.Module,
        *,
        n_features: int,
        num_classes: int,
        dropout: float,
        in_chans: int,
        past_head: bool = False,
    ) -> None:
        super().__init__()
        self.trunk: Any = trunk
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(n_features, num_classes)
        self.num_features = n_features
        self.in_chans = in_chans
        self.past_head = past_head

    def get_classifier(self) -> nn.Linear:
        """Return the last layer."""
        return self.classifier

    def forward_features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the trunk's features, in the trunk's own shape."""
        features: torch.Tensor = self.trunk.forward_features(x_BCHW)
        return features

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return logits (B, K), or the pooled features (B, D) before dropout.

        Args:
            features: what ``forward_features`` returned.
            pre_logits: return the pooled features.
        """
        if not self.past_head:
            features = self.trunk.forward_head(features, pre_logits=True)
        e_BD: torch.Tensor = self.pool(features)
        return e_BD if pre_logits else self.answer(e_BD)

    def answer(self, e_BD: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of pooled features."""
        logits_BK: torch.Tensor = self.classifier(self.dropout(e_BD))
        return logits_BK

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K)."""
        return self.forward_head(self.forward_features(x_BCHW))
