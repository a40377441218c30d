"""adapt_weights: each rule against its formula, and whole networks that answer as before."""

from typing import Any

import pytest
import torch
from timm.layers import RelPosBiasTf, resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import nn

from ichtune.errors import DataError
from ichtune.models.network import Network, create_network
from ichtune.models.pooling import ImageClassifier
from ichtune.models.transfer import adapt_weights, fit_channels
from ichtune.recipe import Recipe


def network_of(seed: int = 0, **values: Any) -> Network:
    torch.manual_seed(seed)
    network = create_network(Recipe.from_dict({"architecture": "tiny_convnet", "image_px": 32, **values}))
    for buffer in network.body.buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5, 1.5)
    return network.eval()


def moved(old: Network, new: Network) -> list[str]:
    tensors, left_out = adapt_weights(old.state_dict(), new)
    missing, unexpected = new.load_state_dict(tensors, strict=False)
    assert unexpected == []
    assert len([name for name in missing if not name.startswith("inputs.")]) <= len(left_out)
    return left_out


@pytest.mark.parametrize(("n_old", "n_new"), [(1, 3), (3, 9), (3, 5), (9, 3), (3, 1), (5, 3), (4, 4)])
def test_an_image_that_is_the_same_in_every_channel_is_answered_as_before(n_old: int, n_new: int) -> None:
    weight = torch.randn(4, n_old, 3, 3)
    image = torch.randn(1, 1, 8, 8)
    fitted = fit_channels(weight, n_new)
    assert fitted.shape == (4, n_new, 3, 3)
    before = nn.functional.conv2d(image.expand(-1, n_old, -1, -1), weight)
    torch.testing.assert_close(nn.functional.conv2d(image.expand(-1, n_new, -1, -1), fitted), before)


def test_more_channels_repeat_the_old_ones_and_fewer_add_them_up() -> None:
    weight = torch.randn(4, 3, 3, 3)
    torch.testing.assert_close(fit_channels(weight, 9), weight.repeat(1, 3, 1, 1) / 3)
    torch.testing.assert_close(fit_channels(weight.repeat(1, 3, 1, 1) / 3, 3), weight)
    torch.testing.assert_close(fit_channels(weight, 1), weight.sum(dim=1, keepdim=True))
    assert torch.equal(fit_channels(weight, 3), weight)


@pytest.mark.parametrize("architecture", ["tiny_convnet", "test_resnet", "test_convnext"])
def test_neighbours_that_equal_the_slice_change_no_answer(architecture: str) -> None:
    old = network_of(1, architecture=architecture)
    new = network_of(2, architecture=architecture, neighbours=2, neighbour_targets=0.5)
    left_out = moved(old, new)
    assert left_out == []
    hu_BSHW = torch.randn(2, 1, 32, 32) * 60 + 40
    with torch.no_grad():
        before = old(old.inputs(hu_BSHW))
        after = new(new.inputs(hu_BSHW.expand(-1, 5, -1, -1)))
        torch.testing.assert_close(after, before.repeat(1, 3), rtol=1e-4, atol=1e-4)
        again = network_of(3, architecture=architecture)
        assert moved(new, again) == []
        torch.testing.assert_close(again(again.inputs(hu_BSHW)), before, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_of_the_same_shape_is_taken_as_it_is() -> None:
    old, new = network_of(1), network_of(2, image_px=64)
    tensors, left_out = adapt_weights(old.state_dict(), new)
    assert left_out == []
    assert all(torch.equal(tensors[name], tensor) for name, tensor in old.state_dict().items())
    assert set(tensors) == set(new.state_dict())


def test_the_classifier_keeps_the_rows_of_the_slice_itself() -> None:
    old, new = network_of(1, neighbour_targets=1.0), network_of(2)
    moved(old, new)
    assert torch.equal(new.get_classifier().weight, old.get_classifier().weight[:6])
    assert torch.equal(new.get_classifier().bias, old.get_classifier().bias[:6])


def test_another_pooling_starts_a_new_classifier_and_says_so() -> None:
    old, new = network_of(1, pooling="average"), network_of(2, pooling="concat")
    own = new.get_classifier().weight.clone()
    assert moved(old, new) == ["body.classifier.weight: (6, 32) in the checkpoint, (6, 64) here"]
    assert torch.equal(new.get_classifier().weight, own)
    assert moved(network_of(3), network_of(4, pooling="gem"))[0] == "body.pool.reduce.p: not in the checkpoint"
    assert moved(network_of(4, pooling="gem"), network_of(3))[-1] == "body.pool.reduce.p: not in this network"


def test_moments_and_learnt_windows_come_along_only_where_they_fit() -> None:
    asked: dict[str, Any] = {"normalisation": "data", "learnable_windows": True}
    old = network_of(1, **asked)
    with torch.no_grad():
        for tensor in old.inputs.state_dict().values():
            tensor.copy_(torch.rand(3) + 0.5)
    same, wider, other = (
        network_of(2, **asked),
        network_of(2, neighbours=1, **asked),
        network_of(2, windows="brain", **asked),
    )
    assert moved(old, same) == []
    assert torch.equal(same.inputs.mean_C, old.inputs.mean_C)
    assert [line.split(":")[0] for line in moved(old, wider)] == ["inputs.mean_C", "inputs.std_C"]
    assert torch.equal(wider.inputs.center_N, old.inputs.center_N)
    left_out = moved(old, other)
    assert left_out[0] == "inputs.center_N: (3,) in the checkpoint, (1,) here"
    assert [line.split(":")[0] for line in left_out] == [
        f"inputs.{n}" for n in ("center_N", "width_N", "mean_C", "std_C")
    ]
    assert torch.equal(other.inputs.center_N, torch.zeros(1))


def test_position_embeddings_are_resampled_as_timm_does_it() -> None:
    old, new = network_of(1, architecture="test_vit", image_px=64), network_of(2, architecture="test_vit", image_px=128)
    embedding = old.body.trunk.pos_embed.detach()
    assert moved(old, new) == []
    expected = resample_abs_pos_embed(embedding, new_size=[8, 8], old_size=[4, 4], num_prefix_tokens=1)
    assert expected.shape == (1, 65, 64)
    torch.testing.assert_close(new.body.trunk.pos_embed.detach(), expected)


def test_tables_of_relative_positions_are_resampled_as_timm_does_it() -> None:
    about: dict[str, Any] = {"architecture": "maxvit_pico_rw_256"}
    old, new = network_of(1, image_px=64, **about), network_of(2, image_px=128, **about)
    name = "body.trunk.stages.3.blocks.0.attn_grid.attn.rel_pos.relative_position_bias_table"
    expected = resize_rel_pos_bias_table(old.state_dict()[name], (4, 4), tuple(new.state_dict()[name].shape))
    assert expected.shape[0] == 49
    assert old.state_dict()[name].shape[0] == 9
    assert expected.std() > 0.005
    left_out = moved(old, new)
    torch.testing.assert_close(new.state_dict()[name], expected)
    assert left_out == []


class OneTable(nn.Module):
    """A trunk that is nothing but a table in the layout of TensorFlow, and two weights beside it."""

    def __init__(self, window: int, heads: int = 2) -> None:
        super().__init__()
        self.default_cfg: dict[str, Any] = {}
        self.rel_pos = RelPosBiasTf((window, window), heads)


def network_on(trunk: nn.Module) -> Network:
    inputs: Any = nn.Identity()
    body = ImageClassifier(trunk, nn.Flatten(), n_features=4, num_classes=6, dropout=0.0, in_chans=3)
    return Network(inputs, body)


def test_tables_in_the_layout_of_tensorflow_are_resampled_too_and_other_heads_are_left_out() -> None:
    old, new = network_on(OneTable(2)), network_on(OneTable(4))
    name = "body.trunk.rel_pos.relative_position_bias_table"
    expected = resize_rel_pos_bias_table(old.state_dict()[name], (4, 4), (2, 7, 7))
    assert expected.std() > 0.005
    assert moved(old, new) == []
    torch.testing.assert_close(new.state_dict()[name], expected)
    assert moved(network_on(OneTable(2, heads=3)), new) == [f"{name}: (3, 3, 3) in the checkpoint, (2, 7, 7) here"]


def test_attention_is_put_into_a_network_that_had_none() -> None:
    old, new = network_of(1, architecture="xresnet50"), network_of(1, architecture="xresnet50_attention")
    left_out = moved(old, new)
    assert len(left_out) == 4
    assert all(".attention." in line and line.endswith("not in the checkpoint") for line in left_out)


def test_another_architecture_is_refused_with_a_name_and_both_shapes() -> None:
    small = network_of(1, architecture="small_convnet")
    with pytest.raises(DataError, match=r"not one of this network \(TinyConvNet\): \d of its 20 tensors fit") as caught:
        adapt_weights(small.state_dict(), network_of(2))
    assert "'body.trunk.features.0.0.weight' of shape (16, 3, 3, 3), the network one of shape (8, 3, 3, 3)" in str(
        caught.value
    )
    with pytest.raises(DataError, match=r"The checkpoint has no 'body\.trunk\.conv1\.0\.weight'"):
        adapt_weights(small.state_dict(), network_of(2, architecture="test_resnet"))
