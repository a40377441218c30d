"""Averages: what they follow, and that the model gets its own weights back."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ichtune.training.averages import EqualAverage, WeightAverage


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def set_all(net: nn.Module, value: float) -> None:
    for tensor in net.state_dict().values():
        tensor.fill_(value)


def draw_all(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))


def copy_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def move(average: WeightAverage | EqualAverage, net: nn.Module) -> None:
    if isinstance(average, WeightAverage):
        average.update(net, step=1)
    else:
        average.update(net)


@pytest.mark.parametrize("kind", ["exponential", "equal"])
def test_the_vectors_of_a_spectral_norm_are_the_newest_and_no_mean(kind: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)), nn.Linear(4, 1))
    average: WeightAverage | EqualAverage = (
        WeightAverage(net, 0.9) if kind == "exponential" else EqualAverage(net, True)
    )
    for seed in range(3):
        draw_all(net, seed)
        for end in "uv":
            vector = net.state_dict()[f"0.parametrizations.weight.0._{end}"]
            vector /= vector.norm()
        move(average, net)
    newest = net.state_dict()
    for end in "uv":
        kept = average.tensors[f"0.parametrizations.weight.0._{end}"]
        assert kept.norm().item() == pytest.approx(1.0)
        assert torch.equal(kept, newest[f"0.parametrizations.weight.0._{end}"])
    for name in ("0.parametrizations.weight.original", "1.weight"):
        assert not torch.allclose(average.tensors[name], newest[name])
    with average.applied_to(net.eval()):
        vector = net[0].parametrizations.weight[0]._u
        assert vector.norm().item() == pytest.approx(1.0)


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


def test_the_exponential_average_is_torch_s() -> None:
    net = model()
    average = WeightAverage(net, decay=0.9)
    reference = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    reference.update_parameters(net)
    for seed in range(5):
        draw_all(net, seed)
        average.update(net, step=1000 + seed)
        reference.update_parameters(net)
    for name, tensor in average.tensors.items():
        torch.testing.assert_close(tensor, reference.module.state_dict()[name])


@pytest.mark.parametrize("average", [WeightAverage(model(), decay=0.9), EqualAverage(model(), keeps=True)])
def test_it_averages_running_statistics_and_leaves_counts(average: WeightAverage | EqualAverage) -> None:
    assert "1.running_mean" in average.tensors
    assert "1.num_batches_tracked" not in average.tensors


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", ["exponential", "equal"])
def test_the_model_has_the_average_inside_the_block_only(kind: str, fails: bool) -> None:
    net = model()
    average: WeightAverage | EqualAverage = (
        WeightAverage(net, 0.5) if kind == "exponential" else EqualAverage(net, True)
    )
    move(average, net)
    set_all(net, 3.0)
    before = copy_of(net)
    try:
        with average.applied_to(net):
            assert torch.equal(net.state_dict()["0.weight"], average.tensors["0.weight"])
            assert not torch.equal(net.state_dict()["0.weight"], before["0.weight"])
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("average", [WeightAverage(model(), 0.0), EqualAverage(model(), keeps=False)])
def test_where_none_is_asked_for_nothing_is_kept_and_the_raw_weights_are_evaluated(
    average: WeightAverage | EqualAverage,
) -> None:
    net = model()
    move(average, net)
    assert average.tensors == {}
    before = copy_of(net)
    with average.applied_to(net):
        assert torch.equal(net.state_dict()["0.weight"], before["0.weight"])


def test_what_was_saved_is_put_back() -> None:
    average, other = WeightAverage(model(), 0.9), WeightAverage(model(), 0.9)
    other.tensors["0.bias"].fill_(7.0)
    average.restore(other.tensors)
    assert average.tensors["0.bias"].tolist() == [7.0, 7.0]


def test_the_equal_average_is_torch_s() -> None:
    net = model()
    average, reference = EqualAverage(net, keeps=True), AveragedModel(net, use_buffers=True)
    for seed in range(1, 6):
        draw_all(net, seed)
        average.update(net)
        reference.update_parameters(net)
    assert average.n_averaged == 5
    with average.applied_to(net):
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                torch.testing.assert_close(tensor, reference.module.state_dict()[name])


def test_the_equal_average_forgets_where_it_was_made() -> None:
    net = model()
    average = EqualAverage(net, keeps=True)
    draw_all(net, 1)
    average.update(net)
    assert torch.equal(average.tensors["0.weight"], net.state_dict()["0.weight"])


def test_before_the_first_update_the_raw_weights_are_evaluated() -> None:
    net = model()
    average = EqualAverage(net, keeps=True)
    set_all(net, 2.0)
    with average.applied_to(net):
        assert net.state_dict()["0.bias"].tolist() == [2.0, 2.0]


def test_an_equal_average_goes_on_with_its_count() -> None:
    net, other = model(), EqualAverage(model(), keeps=True)
    whole = EqualAverage(net, keeps=True)
    for seed in (1, 2):
        draw_all(net, seed)
        whole.update(net)
    other.restore({name: tensor.clone() for name, tensor in whole.tensors.items()}, whole.n_averaged)
    draw_all(net, 3)
    for average in (whole, other):
        average.update(net)
    assert other.n_averaged == 3
    assert all(torch.equal(other.tensors[name], tensor) for name, tensor in whole.tensors.items())
