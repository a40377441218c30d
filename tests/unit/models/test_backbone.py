"""Backbone: the names that timm's networks have, and what they must do."""

import pytest
import torch
from torch import nn

from ichtune.models.backbone import Backbone


class OneConvolution(Backbone):
    """The least that can be built on it."""

    def __init__(self, num_classes: int = 6, drop_rate: float = 0.0) -> None:
        super().__init__(
            nn.Conv2d(2, 5, 3),
            nn.Sequential(nn.AdaptiveMaxPool2d(2), nn.Flatten()),
            num_features=5,
            head_hidden_size=20,
            num_classes=num_classes,
            drop_rate=drop_rate,
            first_conv="features",
            own_px=16,
        )


def test_forward_is_features_and_then_head() -> None:
    network, x = OneConvolution(), torch.randn(3, 2, 16, 16)
    features = network.forward_features(x)
    assert features.shape == (3, 5, 14, 14)
    pooled = network.forward_head(features, pre_logits=True)
    assert pooled.shape == (3, network.head_hidden_size)
    torch.testing.assert_close(network(x), network.get_classifier()(pooled))
    assert network(x).shape == (3, 6)


def test_without_classes_it_gives_what_the_classifier_would_see() -> None:
    network, x = OneConvolution(), torch.randn(3, 2, 16, 16)
    pooled = network.forward_head(network.forward_features(x), pre_logits=True)
    network.reset_classifier(0)
    torch.testing.assert_close(network(x), pooled)
    network.reset_classifier(4)
    assert network(x).shape == (3, 4)


def test_without_a_pooling_it_gives_its_features() -> None:
    network, x = OneConvolution(num_classes=0), torch.randn(3, 2, 16, 16)
    network.reset_classifier(0, "")
    torch.testing.assert_close(network(x), network.forward_features(x))
    assert network.head_hidden_size == network.num_features


def test_dropout_acts_in_training_only() -> None:
    network, x = OneConvolution(drop_rate=0.5), torch.randn(3, 2, 16, 16)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_layers_must_be_named() -> None:
    with pytest.raises(NotImplementedError, match="OneConvolution must name its layers"):
        OneConvolution().group_matcher()
