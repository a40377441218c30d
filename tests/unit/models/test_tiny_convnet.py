"""TinyConvNet: shapes, and the maximum pooling that a small bleed needs."""

import pytest
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
        return model.features(x)

    assert pooled(64).max() > 0
    torch.testing.assert_close(pooled(256), pooled(64))


def test_where_the_spot_lies_is_told_apart() -> None:
    torch.manual_seed(0)
    model = TinyConvNet(1, 6, width=8).eval()
    left = torch.zeros(1, 1, 64, 64)
    left[..., 20:28, 4:12] = 5.0
    assert not torch.allclose(model(left), model(left.flip(-1)), atol=1e-4)
    assert model.get_classifier().out_features == 6


def test_dropout_acts_in_training_only() -> None:
    model = TinyConvNet(1, 6, width=4, drop_rate=0.5)
    x = torch.rand(4, 1, 16, 16)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
