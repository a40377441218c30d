"""Optimizers: what decays, what the recipe's numbers reach, and the steps of the reference implementations."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock
from timm.models.xcit import Xcit
from timm.optim import Lion
from torch import nn, optim

from ichtune.errors import ConfigError, DataError
from ichtune.models.network import Network, create_network
from ichtune.models.pooling import ImageClassifier
from ichtune.recipe import Recipe
from ichtune.training import optimizers
from ichtune.training.optimizers import (
    check_optimizer,
    create_optimizer,
    find_optimizer,
    group_state,
    restore_group_state,
    set_lr,
)


class Windowed(nn.Module):
    """A network with learnable windows in its input layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inputs = nn.Linear(1, 3)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def line() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(5, 3, bias=False)


def walk(net: nn.Module, optimizer: Any, n: int) -> list[torch.Tensor]:
    """Do n steps on a quadratic and return the weights after each."""
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(1))
    path = []
    for _ in range(n):
        optimizer.zero_grad()
        (net(x) - x[:, :3].sin()).square().mean().backward()
        optimizer.step()
        path.append(next(net.parameters()).detach().clone())
    return path


def test_norms_and_biases_do_not_decay() -> None:
    decayed, free = create_optimizer(model(), Recipe(weight_decay=0.1)).param_groups
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert decayed["weight_decay"] == 0.1
    assert len(free["params"]) == 4
    assert free["weight_decay"] == 0.0


SMALL = {"num_classes": 0, "img_size": 64}
SMALL_SWIN = {**SMALL, "embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2)}
SMALL_NETWORKS: dict[str, Callable[[], Any]] = {
    "swin": lambda: timm.create_model("swin_tiny_patch4_window7_224", **SMALL_SWIN),
    "swinv2": lambda: timm.create_model("swinv2_tiny_window8_256", **SMALL_SWIN),
    "maxvit": lambda: timm.create_model("test_maxvit", num_classes=0),
    "vit": lambda: timm.create_model("test_vit", num_classes=0),
    "xcit": lambda: Xcit(**SMALL, embed_dim=32, depth=1, num_heads=2),
    "resmlp": lambda: MlpMixer(
        **SMALL, embed_dim=24, num_blocks=2, mlp_ratio=4, block_layer=ResBlock, norm_layer=Affine
    ),
}


def small_network(name: str) -> Network:
    trunk = SMALL_NETWORKS[name]()
    body = ImageClassifier(trunk, nn.Flatten(), n_features=trunk.num_features, num_classes=6, dropout=0.0, in_chans=3)
    inputs: Any = nn.Identity()
    return Network(inputs, body)


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_what_decays_in_a_network_of_timm_are_the_weights_of_its_layers(name: str) -> None:
    net = small_network(name)
    decayed = create_optimizer(net, Recipe(weight_decay=0.1)).param_groups[0]
    assert decayed["weight_decay"] == 0.1
    positions = (".cpb_mlp.", ".pos_embed.")  # timm names SwinV2's and XCiT's layers that only place a token
    expected = {
        f"{prefix}.weight"
        for prefix, module in net.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and not any(part in prefix for part in positions)
    }
    assert {name for name, p in net.named_parameters() if any(p is other for other in decayed["params"])} == expected
    assert any(p.ndim > 1 and name not in expected for name, p in net.named_parameters()), "none to be left out"


def test_learnable_windows_do_not_decay() -> None:
    net = Windowed()
    decayed, free = create_optimizer(net, Recipe(weight_decay=0.1)).param_groups
    assert not any(p is net.inputs.weight for p in decayed["params"])
    assert any(p is net.inputs.weight for p in free["params"])


def test_frozen_weights_are_left_out() -> None:
    net = model()
    for parameter in net.parameters():
        parameter.requires_grad = parameter.ndim > 1
    groups = create_optimizer(net, Recipe()).param_groups
    assert len(groups) == 1


def test_only_what_is_named_is_learnt() -> None:
    net = model()
    groups = create_optimizer(net, Recipe(), only={"3.weight", "3.bias", "1.weight"}).param_groups
    learnt = {id(p) for group in groups for p in group["params"]}
    assert learnt == {id(p) for name, p in net.named_parameters() if name in ("3.weight", "3.bias", "1.weight")}


@pytest.mark.parametrize(
    ("name", "decoupled"),
    [("adamw", True), ("radam", True), ("ranger", True), ("lion", True), ("sgd", False), ("adam", False)],
)
def test_decoupled_decay_shrinks_a_weight_without_gradient_by_lr_times_decay(name: str, decoupled: bool) -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    optimizer = create_optimizer(net, Recipe(optimizer=name, lr=0.1, weight_decay=0.5, momentum=0.0))
    net.weight.grad = torch.zeros_like(net.weight)
    optimizer.step()
    shrunk = net.weight.item()
    assert shrunk < 1.0
    if decoupled or name == "sgd":
        assert shrunk == pytest.approx(0.95)
    else:
        assert shrunk == pytest.approx(0.9)  # Adam divides the decay by its own size


class BySixes:
    """Lookahead as its paper has it, on top of another optimizer: slow weights begin where the fast ones do."""

    def __init__(self, fast: optim.Optimizer) -> None:
        self.fast, self.n_steps = fast, 0
        self.weights = [p for group in fast.param_groups for p in group["params"]]
        self.slow = [p.detach().clone() for p in self.weights]

    def zero_grad(self) -> None:
        self.fast.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        self.fast.step()
        self.n_steps += 1
        if self.n_steps % 6 == 0:
            for weight, slow in zip(self.weights, self.slow, strict=True):
                slow += 0.5 * (weight - slow)
                weight.copy_(slow)


def reference(name: str, net: nn.Module, betas: tuple[float, float] | None, eps: float | None) -> Any:
    """Build by hand what a name stands for; betas and eps replace its own."""
    p, both = list(net.parameters()), {"lr": 0.01, "weight_decay": 0.1}
    if name == "adam":
        return optim.Adam(p, betas=betas or (0.9, 0.999), eps=eps or 1e-8, **both)
    if name == "adamw":
        return optim.AdamW(p, betas=betas or (0.9, 0.999), eps=eps or 1e-8, **both)
    if name == "sgd":
        return optim.SGD(p, momentum=0.8, nesterov=True, **both)
    if name == "lion":
        return Lion(p, betas=betas or (0.9, 0.99), **both)
    own_betas, own_eps = ((0.95, 0.99), 1e-6) if name == "ranger" else ((0.9, 0.999), 1e-8)
    fast = optim.RAdam(p, betas=betas or own_betas, eps=eps or own_eps, decoupled_weight_decay=True, **both)
    return BySixes(fast) if name == "ranger" else fast


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", ["adam", "adamw", "radam", "ranger", "sgd", "lion"])
def test_its_steps_are_those_of_the_reference(name: str, given: bool) -> None:
    kind = find_optimizer(name)
    settings: dict[str, Any] = {"optimizer": name, "lr": 0.01, "weight_decay": 0.1, "momentum": 0.8}
    if given:
        settings |= {"beta1": 0.8, "beta2": 0.9} if kind.betas else {}
        settings |= {"eps": 1e-3} if kind.eps else {}
    ours, theirs = line(), line()
    betas, eps = ((0.8, 0.9), 1e-3) if given else (None, None)
    path = walk(ours, create_optimizer(ours, Recipe.from_dict(settings)), 15)
    for step, (one, other) in enumerate(zip(path, walk(theirs, reference(name, theirs, betas, eps), 15), strict=True)):
        assert torch.equal(one, other), f"step {step}"


@pytest.mark.parametrize("key", ["beta1", "beta2", "eps"])
def test_each_number_that_is_given_changes_the_steps(key: str) -> None:
    plain, other = (
        walk(net, create_optimizer(net, Recipe(lr=0.01, **given)), 9)[-1]
        for net, given in (
            (line(), {}),
            (line(), {key: 0.5 if key != "eps" else 0.01}),
        )
    )
    assert not torch.equal(plain, other)


@pytest.mark.parametrize(("name", "keys"), [("sgd", ("beta1", "beta2", "eps")), ("lion", ("eps",))])
def test_a_number_that_the_optimizer_has_not_is_refused(name: str, keys: tuple[str, ...]) -> None:
    check_optimizer(Recipe(optimizer=name))
    for key in keys:
        recipe = Recipe.from_dict({"optimizer": name, key: 0.01})
        for act in (lambda r=recipe: check_optimizer(r), lambda r=recipe: create_optimizer(line(), r)):
            with pytest.raises(ConfigError, match=rf"'{key}' is none that optimizer '{name}' reads, got 0.01"):
                act()


def test_momentum_is_sgd_s() -> None:
    assert create_optimizer(model(), Recipe(optimizer="sgd", momentum=0.8)).param_groups[0]["momentum"] == 0.8
    assert not create_optimizer(model(), Recipe(optimizer="sgd", momentum=0.0)).param_groups[0]["nesterov"]


def gradient(w: torch.Tensor) -> torch.Tensor:
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(1))
    return 2 * (x @ w.T - x[:, :3].sin()).T @ x / (16 * 3)


def test_lion_steps_by_the_sign_of_a_moving_average() -> None:
    net = line()
    w, m = net.weight.detach().clone(), torch.zeros(3, 5)
    path = walk(net, create_optimizer(net, Recipe(optimizer="lion", lr=0.01, weight_decay=0.1)), 12)
    for got in path:
        g = gradient(w)
        w = w * (1 - 0.01 * 0.1) - 0.01 * torch.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
        torch.testing.assert_close(got, w)


def test_ranger_meets_its_slow_weights_every_sixth_step() -> None:
    net = line()
    path = walk(net, create_optimizer(net, Recipe(optimizer="ranger", lr=0.01, weight_decay=0.1)), 18)
    w = line().weight.detach().clone().requires_grad_()
    fast = optim.RAdam([w], lr=0.01, betas=(0.95, 0.99), eps=1e-6, weight_decay=0.1, decoupled_weight_decay=True)
    slow = w.detach().clone()
    for step, got in enumerate(path, 1):
        w.grad = gradient(w.detach())
        fast.step()
        if step % 6 == 0:
            slow = (slow + w.detach()) / 2
            with torch.no_grad():
                w.copy_(slow)
        torch.testing.assert_close(got, w.detach())


def test_a_weight_that_learns_later_has_its_own_start_as_its_slow_weight() -> None:
    net, late = line(), nn.Parameter(torch.ones(2))
    net.register_parameter("late", late)
    optimizer = create_optimizer(net, Recipe(optimizer="ranger", lr=0.01, weight_decay=0.0))
    walk(net, optimizer, 3)
    late.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(optimizer._base_optimizer.state[late]["lookahead_slow_buff"], torch.ones(2))
    assert not torch.equal(late, torch.ones(2))


def test_each_layer_has_its_share_of_the_rate_whenever_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    net = model()
    monkeypatch.setattr(
        optimizers, "layer_scales", lambda n, decay: {k: decay ** (3 - int(k[0])) for k, _ in n.named_parameters()}
    )
    optimizer = create_optimizer(net, Recipe(lr=0.1, layer_lr_decay=0.5, weight_decay=0.2))
    shares = {"0": 0.125, "1": 0.25, "3": 1.0}
    wanted = {name: shares[name[0]] for name, _ in net.named_parameters()}
    for lr in (0.1, 0.04):
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert {name: rates[id(p)] for name, p in net.named_parameters()} == {
            name: pytest.approx(lr * share) for name, share in wanted.items()
        }
        set_lr(optimizer, 0.04)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in net.parameters()] == [0.2 if p.ndim > 1 else 0.0 for p in net.parameters()]


def test_the_first_layer_of_a_network_learns_more_slowly_than_its_last() -> None:
    recipe = Recipe(architecture="resnet18", image_px=32, lr=0.1, layer_lr_decay=0.5)
    net = create_network(recipe)
    optimizer = create_optimizer(net, recipe)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    first, *_, last = (rates[id(p)] for p in net.parameters())
    assert first < 0.05 < last == 0.1


def test_without_layer_decay_there_are_two_groups_of_the_whole_rate() -> None:
    assert [group["lr_scale"] for group in create_optimizer(model(), Recipe()).param_groups] == [1.0, 1.0]


def test_the_rate_of_a_foreign_optimizer_is_set_whole() -> None:
    optimizer = optim.SGD(model().parameters(), lr=1.0)
    set_lr(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(("name", "can"), [("adam", True), ("adamw", True), ("sgd", True), ("radam", False)])
def test_steps_are_fused_on_a_gpu_only_and_where_torch_can(
    name: str, can: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(optimizer=name)
    assert not create_optimizer(model(), recipe).param_groups[0].get("fused")
    monkeypatch.setattr(optimizers, "on_cuda", lambda parameter: True)
    assert bool(create_optimizer(model(), recipe).param_groups[0].get("fused")) == can


def test_the_numbers_of_the_groups_come_back() -> None:
    net = line()
    optimizer = create_optimizer(net, Recipe(optimizer="ranger"))
    walk(net, optimizer, 4)
    set_lr(optimizer, 0.123)
    state = group_state(optimizer)
    assert state[0]["lookahead_step"] == 4
    other = create_optimizer(line(), Recipe(optimizer="ranger"))
    restore_group_state(other, state)
    assert group_state(other) == state
    assert other.param_groups[0]["lr"] == 0.123


def test_the_numbers_of_other_groups_are_refused() -> None:
    state = group_state(create_optimizer(line(), Recipe()))
    with pytest.raises(DataError, match=r"must have 2 parameter groups, got 1; remove the checkpoint"):
        restore_group_state(create_optimizer(model(), Recipe()), state)


def test_a_misspelt_optimizer_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown optimizer 'adamv'. Did you mean 'adam"):
        find_optimizer("adamv")
