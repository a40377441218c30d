"""XResNet: equal to timm's ResNet-50-D with Mish and the seed's stem, and an attention that obeys its algebra."""

import pytest
import timm
import timm.models
import torch
from torch import nn

from ichtune.models.xresnet import DEPTHS, SimpleSelfAttention, XResNet


def n_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def counted_by_hand(in_chans: int, num_classes: int) -> int:
    def convolution(ins: int, outs: int, kernel: int) -> int:
        return ins * outs * kernel**2 + 2 * outs  # and its batch norm

    total = convolution(in_chans, 32, 3) + convolution(32, 64, 3) + convolution(64, 64, 3)  # the seed's stem
    ins = 64
    for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
        total += convolution(ins, 4 * width, 1)  # the first block's shortcut
        for _ in range(depth):
            total += convolution(ins, width, 1) + convolution(width, width, 3) + convolution(width, 4 * width, 1)
            ins = 4 * width
    return total + 2048 * num_classes + num_classes


@pytest.mark.parametrize(("in_chans", "num_classes"), [(3, 6), (9, 18), (1, 1000)])
def test_it_has_exactly_the_parameters_of_its_description(in_chans: int, num_classes: int) -> None:
    assert n_parameters(XResNet(in_chans, num_classes)) == counted_by_hand(in_chans, num_classes)


@pytest.mark.parametrize("symmetric", [False, True])
def test_attention_adds_one_square_matrix_and_one_factor(symmetric: bool) -> None:
    attending = XResNet(3, 6, attention=True, symmetric=symmetric)
    assert n_parameters(attending) == counted_by_hand(3, 6) + 256**2 + 1
    is_there = [[isinstance(b.attention, SimpleSelfAttention) for b in stage] for stage in attending.features.stages]
    assert is_there == [[stage == 0 and b == 2 for b in range(depth)] for stage, depth in enumerate(DEPTHS)]


def test_it_computes_what_the_resnet_50_d_of_timm_does_with_mish() -> None:
    torch.manual_seed(0)
    ours = XResNet(2, 6).eval()
    reference = timm.create_model("resnet50d", in_chans=2, num_classes=6, act_layer="mish")
    reference.conv1[3] = nn.Conv2d(32, 64, 3, padding=1, bias=False)  # where ResNet-D has 32 channels
    reference.conv1[4], reference.conv1[6] = nn.BatchNorm2d(64), nn.Conv2d(64, 64, 3, padding=1, bias=False)
    reference.eval()
    for p in ours.parameters():
        if p.ndim == 1:  # a zero gamma would hide the blocks
            torch.nn.init.uniform_(p, 0.5, 1.0)
    pairs = list(zip(reference.state_dict().items(), ours.state_dict().values(), strict=True))
    assert all(theirs.shape == mine.shape for (_, theirs), mine in pairs)
    reference.load_state_dict({name: mine for (name, _), mine in pairs})
    x = torch.randn(2, 2, 65, 65)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x), rtol=1e-3, atol=1e-3)


def test_the_shortcut_s_average_at_an_odd_border_is_the_seed_s() -> None:
    block = XResNet(1, 6).features.stages[1][0].eval()
    x = torch.randn(1, 256, 5, 7)
    torch.testing.assert_close(block.shortcut[0](x), nn.AvgPool2d(2, ceil_mode=True)(x))


def test_small_images_pass_and_every_block_starts_as_its_shortcut() -> None:
    model = XResNet(9, 6)
    features = model.eval().forward_features(torch.randn(2, 9, 32, 32))
    assert features.shape == (2, 2048, 1, 1)
    block = model.features.stages[1][1].train()
    x = torch.randn(2, 512, 4, 4)
    torch.testing.assert_close(block(x), torch.nn.functional.mish(x))


def test_with_gamma_at_its_start_attention_does_nothing() -> None:
    torch.manual_seed(0)
    plain, attending = XResNet(1, 6).eval(), XResNet(1, 6, attention=True).eval()
    missing, unexpected = attending.load_state_dict(plain.state_dict(), strict=False)
    assert all(".attention." in name for name in missing)
    assert unexpected == []
    torch.nn.init.ones_(plain.features.stages[0][2].convolutions[-1][1].weight)
    torch.nn.init.ones_(attending.features.stages[0][2].convolutions[-1][1].weight)
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(attending(x), plain(x))
        attending.features.stages[0][2].attention.gamma.fill_(0.01)
        assert not torch.allclose(attending(x), plain(x))


def test_blocks_are_layers_and_coarse_ones_are_stages() -> None:
    model = XResNet(1, 6, attention=True)
    fine = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
    coarse = timm.models.group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert fine["features.stem.0.0.weight"] == coarse["features.stem.2.1.bias"] == 0
    assert fine["features.stages.0.2.attention.gamma"] == 3
    assert fine["classifier.weight"] == 1 + sum(DEPTHS)
    assert coarse["classifier.weight"] == 1 + len(DEPTHS)


CHANNELS, SIDE = 6, (4, 5)


def attention(symmetric: bool, gamma: float = 0.7) -> SimpleSelfAttention:
    torch.manual_seed(3)
    layer = SimpleSelfAttention(CHANNELS, symmetric).double().eval()
    with torch.no_grad():
        layer.gamma.fill_(gamma)
    return layer


def features(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, CHANNELS, *SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def matrix(layer: SimpleSelfAttention) -> torch.Tensor:
    return layer.conv.weight[:, :, 0]


def settle(layer: SimpleSelfAttention) -> None:
    """Let the power iteration of the spectral norm converge."""
    layer.train()
    for _ in range(1000):
        matrix(layer)
    layer.eval()


both = pytest.mark.parametrize("symmetric", [False, True])


@both
def test_attention_is_the_naive_formula(symmetric: bool) -> None:
    layer, x = attention(symmetric), features()
    for slice_CHW, ours_CHW in zip(x, layer(x), strict=True):
        x_CN = slice_CHW.reshape(CHANNELS, -1)
        o_CN = x_CN @ (x_CN.T @ (matrix(layer) @ x_CN))
        torch.testing.assert_close(ours_CHW.reshape(CHANNELS, -1), x_CN + 0.7 * o_CN)


@both
def test_exchanged_positions_are_answered_exchanged(symmetric: bool) -> None:
    layer, x = attention(symmetric), features()
    order = torch.randperm(SIDE[0] * SIDE[1])

    def exchanged(features_BCHW: torch.Tensor) -> torch.Tensor:
        return features_BCHW.flatten(2)[..., order].view(features_BCHW.shape)

    torch.testing.assert_close(layer(exchanged(x)), exchanged(layer(x)))


@both
def test_the_memory_format_changes_nothing(symmetric: bool) -> None:
    layer, x = attention(symmetric), features()
    there = layer(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(there, layer(x))
    assert there.is_contiguous(memory_format=torch.channels_last)


@both
def test_the_largest_singular_value_of_its_weight_is_1(symmetric: bool) -> None:
    layer = attention(symmetric)
    settle(layer)
    assert torch.linalg.matrix_norm(matrix(layer), ord=2).item() == pytest.approx(1.0, abs=1e-6)


def test_the_symmetric_form_is_a_symmetric_map_and_the_other_is_not() -> None:
    x, y = features(1), features(2)

    def product(layer: SimpleSelfAttention, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a.flatten(2) * layer.conv(b.flatten(2))).sum()

    torch.testing.assert_close(matrix(attention(True)), matrix(attention(True)).T)
    torch.testing.assert_close(product(attention(True), x, y), product(attention(True), y, x))
    assert not torch.allclose(product(attention(False), x, y), product(attention(False), y, x))
    raw = attention(True).conv.parametrizations.weight.original[:, :, 0]
    assert not torch.allclose(raw, raw.T), "the weight itself is free, and its symmetric part is used"


@both
def test_another_basis_of_the_channels_changes_the_answer_to_that_basis(symmetric: bool) -> None:
    layer, turned, x = attention(symmetric), attention(symmetric), features()
    q_CC = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, dtype=torch.float64)).Q

    def in_basis(features_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.einsum("dc,bchw->bdhw", q_CC, features_BCHW)

    with torch.no_grad():
        raw = layer.conv.parametrizations.weight.original[:, :, 0]
        turned.conv.parametrizations.weight.original.copy_((q_CC @ raw @ q_CC.T)[:, :, None])
    settle(layer)
    settle(turned)
    torch.testing.assert_close(turned(in_basis(x)), in_basis(layer(x)))


@both
def test_gradients_reach_the_weight_the_factor_and_the_features(symmetric: bool) -> None:
    layer, x = attention(symmetric), features().requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    layer(x).square().sum().backward()
    grads = [p.grad for p in (*layer.parameters(), x)]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)
