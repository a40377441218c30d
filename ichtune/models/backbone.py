"""Backbone: what every network written here shares, under the names that timm's networks give it.

Dimension key: B batch, C channels, H height, W width, D embedding, K outputs.
"""

from typing import Any

import torch
from torch import nn


class Backbone(nn.Module):
    """Features, a pooling, dropout and a linear layer, which can be used wherever a network of timm can.

    Args:
        features: maps images (B, in_chans, H, W) to features (B, num_features, h, w).
        pool: maps these features to (B, head_hidden_size); the network's own pooling.
        num_features: channels of the features.
        head_hidden_size: what the linear layer is given.
        num_classes: outputs, logits; 0 leaves the linear layer out.
        drop_rate: dropout before the linear layer.
        first_conv: name of the convolution that sees the image.
        own_px: side of the images that it was designed for; others pass too.
    """

    def __init__(
        self,
        features: nn.Module,
        pool: nn.Module,
        *,
        num_features: int,
        head_hidden_size: int,
        num_classes: int,
        drop_rate: float,
        first_conv: str,
        own_px: int,
    ) -> None:
        super().__init__()
        self.features = features
        self.pool = pool
        self.num_features = num_features
        self.head_hidden_size = head_hidden_size
        self.dropout = nn.Dropout(drop_rate)
        self.default_cfg = {"input_size": (3, own_px, own_px), "first_conv": first_conv, "classifier": "classifier"}
        self.classifier = self._linear(num_classes)

    def _linear(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new last layer in place of the old one.

        Args:
            num_classes: outputs; 0 leaves the layer out.
            global_pool: an empty string leaves the pooling out too; None keeps it.
        """
        if global_pool == "":
            self.pool = nn.Identity()
            self.head_hidden_size = self.num_features
        self.classifier = self._linear(num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return regular expressions of parameter names: the layers, from the image on.

        Args:
            coarse: stages rather than blocks.
        """
        raise NotImplementedError(f"{type(self).__name__} must name its layers")

    def forward_features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return features (B, num_features, h, w)."""
        features_BCHW: torch.Tensor = self.features(x_BCHW)
        return features_BCHW

    def forward_head(self, features_BCHW: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return logits (B, K), or what the linear layer is given, after dropout as timm does it.

        Args:
            features_BCHW: what ``forward_features`` returned.
            pre_logits: stop before the linear layer.
        """
        e_BD: torch.Tensor = self.dropout(self.pool(features_BCHW))
        return e_BD if pre_logits else self.classifier(e_BD)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K)."""
        return self.forward_head(self.forward_features(x_BCHW))
