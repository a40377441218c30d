"""Poolings against timm's and against their formula, on every shape that features have."""

from typing import Any

import pytest
import torch
from timm.layers import SelectAdaptivePool2d
from torch import nn

from ichtune.models.create import create_model
from ichtune.models.pooling import GEM_LEAST, POOLS, FeaturePool, GeneralisedMean, ImageClassifier
from ichtune.recipe import POOLINGS


def test_every_pooling_that_a_recipe_can_name_is_there() -> None:
    assert ("default", *POOLS) == POOLINGS


def gem(x_BCHW: torch.Tensor, p: float = 3.0) -> torch.Tensor:
    return (x_BCHW.clamp(min=GEM_LEAST) ** p).mean(dim=(2, 3)) ** (1 / p)


REFERENCES = {
    "average": SelectAdaptivePool2d(pool_type="avg", flatten=True),
    "max": SelectAdaptivePool2d(pool_type="max", flatten=True),
    "concat": SelectAdaptivePool2d(pool_type="catavgmax", flatten=True),
    "gem": gem,
}


@pytest.mark.parametrize("pooling", POOLS)
def test_it_pools_as_the_reference_does_whatever_the_shape_of_the_features(pooling: str) -> None:
    x_BCHW = torch.randn(2, 5, 3, 4)
    expected = REFERENCES[pooling](x_BCHW)
    if pooling == "concat":  # timm's is average and maximum in this order
        assert expected.shape == (2, 10)
    torch.testing.assert_close(FeaturePool(pooling)(x_BCHW), expected)
    torch.testing.assert_close(FeaturePool(pooling, channels_end=True)(x_BCHW.permute(0, 2, 3, 1)), expected)
    tokens_BPC = torch.cat([torch.full((2, 2, 5), 99.0), x_BCHW.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(FeaturePool(pooling, n_prefix=2)(tokens_BPC), expected)


def test_the_generalised_mean_lies_between_average_and_maximum() -> None:
    x_BPC, pool = torch.rand(2, 12, 5), GeneralisedMean()
    assert torch.equal(pool.p, torch.tensor([3.0]))
    assert (pool(x_BPC) > x_BPC.mean(dim=1)).all()
    assert (pool(x_BPC) < x_BPC.amax(dim=1)).all()
    with torch.no_grad():
        pool.p.fill_(1.0)
        torch.testing.assert_close(pool(x_BPC), x_BPC.clamp(min=GEM_LEAST).mean(dim=1))
        pool.p.fill_(80.0)
        torch.testing.assert_close(pool(x_BPC.clamp(min=0.5)), x_BPC.clamp(min=0.5).amax(dim=1), rtol=0.05, atol=0.0)


def test_the_exponent_is_learnt_and_dead_features_give_finite_gradients() -> None:
    pool = GeneralisedMean()
    x_BPC = torch.cat([torch.rand(2, 6, 3), torch.zeros(2, 6, 2), -torch.ones(2, 6, 1)], dim=2).requires_grad_()
    pool(x_BPC).sum().backward()
    assert pool.p.grad is not None
    assert torch.isfinite(pool.p.grad).all()
    assert pool.p.grad.abs() > 1e-3
    assert x_BPC.grad is not None
    assert torch.isfinite(x_BPC.grad).all()


def unpooled(name: str, trunk: Any, x: torch.Tensor) -> torch.Tensor:
    """What there is to pool, (B, C, positions), told apart by hand."""
    features = trunk.forward_features(x)
    if name == "test_convnext":  # its norm lies in the head, above the pooling
        return trunk.head.norm(features).flatten(2)
    if name in ("test_vit", "deit_tiny_distilled_patch16_224"):  # one class token, or two
        return features[:, 1 if name == "test_vit" else 2 :].transpose(1, 2)
    if name == "test_mambaout":  # channels end, and a perceptron comes before the classifier
        return trunk.head.pre_logits(trunk.head.norm(features)).permute(0, 3, 1, 2).flatten(2)
    return features.permute(0, 3, 1, 2).flatten(2) if features.shape[1] == features.shape[2] else features.flatten(2)


NETWORKS = ["test_resnet", "test_convnext", "test_vit", "test_mambaout", "tiny_convnet"]


@pytest.mark.parametrize("pooling", POOLS)
@pytest.mark.parametrize("name", [*NETWORKS, "deit_tiny_distilled_patch16_224"])
def test_it_replaces_the_pooling_of_any_network(name: str, pooling: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, 2, image_px=64, pooling=pooling).eval()
    x = torch.randn(2, 2, 64, 64)
    with torch.no_grad():
        features_BCP = unpooled(name, model.trunk, x)
        expected = REFERENCES[pooling](features_BCP[..., None])
        assert features_BCP.shape[2] > 1
        torch.testing.assert_close(model.forward_head(model.forward_features(x), pre_logits=True), expected)
        torch.testing.assert_close(model(x), model.get_classifier()(expected))
    factor = 2 if pooling == "concat" else 1
    assert model.get_classifier().in_features == model.num_features == factor * features_BCP.shape[1]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "tiny_convnet"])
def test_dropout_acts_between_pooling_and_classifier_with_each_of_them(name: str, pooling: str) -> None:
    model = create_model(name, 1, image_px=64, pooling=pooling, dropout=0.5)
    features = model.forward_features(torch.randn(4, 1, 64, 64))
    pooled = model.forward_head(features, pre_logits=True)
    assert torch.equal(model.forward_head(features, pre_logits=True), pooled)
    torch.manual_seed(1)
    logits = model.forward_head(features)
    torch.manual_seed(1)
    torch.testing.assert_close(model.get_classifier()(nn.functional.dropout(pooled, 0.5)), logits)
    assert not torch.allclose(model.get_classifier()(pooled), logits)
    model.eval()
    torch.testing.assert_close(model.get_classifier()(pooled), model.forward_head(features))


def test_past_the_head_the_features_themselves_are_pooled() -> None:
    class Trunk(nn.Module):
        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

        def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
            return -features

    x = torch.rand(2, 3, 4, 4)
    settings: dict[str, Any] = {"n_features": 3, "num_classes": 6, "dropout": 0.0, "in_chans": 3}
    for past_head, expected in ((True, 2 * x), (False, -2 * x)):
        model = ImageClassifier(Trunk(), FeaturePool("max"), past_head=past_head, **settings)
        torch.testing.assert_close(model(x), model.classifier(expected.amax(dim=(2, 3))))
