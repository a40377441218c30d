"""TinyConvNet: shapes, and the maximum pooling that a small bleed needs."""

import pytest
import timm.models
import torch

from ichtune.models.tiny_convnet import TinyConvNet


@pytest.mark.parametrize(("in_chans", "size"), [(1, 16), (9, 64), (3, 33)])
def test_any_number_of_channels_and_any_size_gives_logits(in_chans: int, size: int) -> None:
    model = TinyConvNet(in_chans, 6, width=4).eval()
    assert model(torch.zeros(2, in_chans, size, size)).shape == (2, 6)


def test_one_bright_spot_reaches_the_classifier_undiluted() -> None:
    torch.manual_seed(0)
    model = TinyConvNet(1, 6, width=8).eval()

    def pooled(size: int) -> torch.Tensor:
        x = torch.zeros(1, 1, size, size)
        x[..., 4:10, 4:10] = 5.0
        return model.forward_head(model.forward_features(x), pre_logits=True)

    assert pooled(64).max() > 0
    torch.testing.assert_close(pooled(256), pooled(64))


def test_where_the_spot_lies_is_told_apart() -> None:
    torch.manual_seed(0)
    model = TinyConvNet(1, 6, width=8).eval()
    left = torch.zeros(1, 1, 64, 64)
    left[..., 20:28, 4:12] = 5.0
    assert not torch.allclose(model(left), model(left.flip(-1)), atol=1e-4)


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("size", [16, 64, 66, 25])
def test_an_exported_network_pools_by_plain_maxima_and_says_the_same(size: int) -> None:
    torch.manual_seed(0)
    model, x_BCHW = TinyConvNet(1, 6, width=4).eval(), torch.randn(3, 1, size, size)
    exported = torch.export.export(model, (x_BCHW,), dynamic_shapes=[{0: torch.export.Dim("n", min=1)}])
    called = {str(node.target) for node in exported.graph.nodes}
    assert any("amax" in name for name in called)
    assert not any("pool" in name for name in called)
    assert torch.equal(exported.module()(x_BCHW[:2]), model(x_BCHW[:2]))


def test_each_block_is_a_layer_and_the_classifier_lies_above_them() -> None:
    model = TinyConvNet(1, 6)
    layer_of = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
    assert {name: layer_of[name] for name in layer_of if name.endswith(".0.weight")} == {
        "features.0.0.weight": 0,
        "features.1.0.weight": 1,
        "features.2.0.weight": 2,
    }
    assert layer_of["classifier.weight"] == 3
    assert layer_of["features.1.1.bias"] == 1
    assert model.default_cfg["first_conv"] == "features.0.0"
