"""WeightAverage: what it follows, and that the model gets its own weights back."""

import pytest
import torch
from torch import nn

from ichtune.training.ema import WeightAverage


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def set_all(net: nn.Module, value: float) -> None:
    for tensor in net.state_dict().values():
        tensor.fill_(value)


def test_it_moves_a_share_of_the_way() -> None:
    net = model()
    set_all(net, 0.0)
    average = WeightAverage(net, decay=0.9)
    set_all(net, 1.0)
    average.update(net, step=10_000)
    assert average.tensors["0.weight"].flatten().tolist() == pytest.approx([0.1] * 4)


def test_the_start_is_soon_forgotten() -> None:
    net = model()
    set_all(net, 0.0)
    average = WeightAverage(net, decay=0.999)
    set_all(net, 1.0)
    average.update(net, step=0)
    assert average.tensors["0.weight"][0, 0].item() == pytest.approx(0.9)


def test_it_averages_running_statistics_and_leaves_counts() -> None:
    average = WeightAverage(model(), decay=0.9)
    assert "1.running_mean" in average.tensors
    assert "1.num_batches_tracked" not in average.tensors


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_has_the_average_inside_the_block_only(fails: bool) -> None:
    net = model()
    average = WeightAverage(net, decay=0.5)
    set_all(net, 3.0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    try:
        with average.applied_to(net):
            assert torch.equal(net.state_dict()["0.weight"], average.tensors["0.weight"])
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_without_decay_nothing_is_kept_and_the_raw_weights_are_evaluated() -> None:
    net = model()
    average = WeightAverage(net, decay=0.0)
    average.update(net, step=0)
    assert average.tensors == {}
    before = net.state_dict()["0.weight"].clone()
    with average.applied_to(net):
        assert torch.equal(net.state_dict()["0.weight"], before)


def test_what_was_saved_is_put_back() -> None:
    average, other = WeightAverage(model(), 0.9), WeightAverage(model(), 0.9)
    other.tensors["0.bias"].fill_(7.0)
    average.restore(other.tensors)
    assert average.tensors["0.bias"].tolist() == [7.0, 7.0]
