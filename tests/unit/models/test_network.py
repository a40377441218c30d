"""Network: embed and answer, rules for `any`, every recipe key that builds it, and whose parameters are whose."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.optim
import torch
from safetensors.torch import save_file
from timm.layers import RmsNorm
from timm.layers.grn import GlobalResponseNorm
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock
from torch import nn

from ichtune.errors import ConfigError
from ichtune.labels import ANY, LABELS
from ichtune.models.create import create_model, start_at_rates
from ichtune.models.network import (
    ANY_RULES,
    Network,
    create_network,
    head_parameters,
    layer_scales,
    noisy_or,
    norm_parameters,
    undecayed_parameters,
)
from ichtune.recipe import ANY_RULES as NAMED_RULES
from ichtune.recipe import Recipe

SMALL: dict[str, Any] = {"architecture": "tiny_convnet", "image_px": 32}


def network_of(**values: Any) -> Network:
    torch.manual_seed(0)
    return create_network(Recipe.from_dict(SMALL | values))


@pytest.mark.parametrize("any_rule", NAMED_RULES)
@pytest.mark.parametrize("architecture", ["tiny_convnet", "test_resnet", "test_vit"])
def test_forward_answers_what_embed_gave_and_dropout_lies_between(architecture: str, any_rule: str) -> None:
    network = network_of(architecture=architecture, any_rule=any_rule, dropout=0.5, neighbour_targets=0.5)
    x_BCHW = network.inputs(torch.randn(3, 1, 32, 32) * 50 + 40)
    e_BD = network.embed(x_BCHW)
    assert torch.equal(network.embed(x_BCHW), e_BD)
    assert e_BD.shape == (3, network.get_classifier().in_features)
    torch.manual_seed(1)
    logits_BK = network(x_BCHW)
    torch.manual_seed(1)
    torch.testing.assert_close(network.answer(e_BD), logits_BK)
    assert logits_BK.shape == (3, 18)
    assert not torch.allclose(network.answer(e_BD), logits_BK)
    network.eval()
    torch.testing.assert_close(network.answer(network.embed(x_BCHW)), network(x_BCHW))


class Given(nn.Module):
    """A body that answers with its features."""

    def answer(self, e_BD: torch.Tensor) -> torch.Tensor:
        return e_BD


def answered(any_rule: str, logits_BK: torch.Tensor) -> torch.Tensor:
    body: Any = Given()
    inputs: Any = nn.Identity()
    return Network(inputs, body, any_rule).answer(logits_BK)


def test_every_rule_that_a_recipe_can_name_is_there() -> None:
    assert {"own", *ANY_RULES} == set(NAMED_RULES)


@pytest.mark.parametrize("n_slices", [1, 3])
def test_each_rule_is_its_formula_in_each_slice_s_block(n_slices: int) -> None:
    logits_BK = torch.randn(5, 6 * n_slices) * 3
    any_at = LABELS.index(ANY)
    torch.testing.assert_close(answered("own", logits_BK), logits_BK)
    for rule in ANY_RULES:
        ours_BTL = answered(rule, logits_BK).view(5, n_slices, 6)
        expected_BTL = logits_BK.view(5, n_slices, 6).clone()
        subtypes = [i for i in range(6) if i != any_at]
        z = expected_BTL[..., subtypes].double()
        p_any = 1 - (1 - z.sigmoid()).prod(dim=-1)
        expected_BTL[..., any_at] = (torch.logit(p_any) if rule == "noisy_or" else z.max(dim=-1).values).float()
        torch.testing.assert_close(ours_BTL, expected_BTL, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [100.0, -100.0])
def test_noisy_or_is_exact_where_probabilities_are_not(size: float) -> None:
    z_BN = torch.full((1, 5), size, requires_grad=True)
    logit_B = noisy_or(z_BN)
    # Odds of 5 e^-100, and of about e^500: 1 - p_any is the product of five e^-100.
    assert logit_B.item() == pytest.approx(size + math.log(5) if size < 0 else 5 * size, rel=1e-6)
    logit_B.sum().backward()
    assert z_BN.grad is not None
    torch.testing.assert_close(z_BN.grad, torch.full((1, 5), 0.2 if size < 0 else 1.0))


def test_noisy_or_mixes_extremes_and_its_gradient_is_that_of_the_formula() -> None:
    mixed_BN = torch.tensor([[100.0, -100.0, 0.0, 100.0, -100.0]], requires_grad=True)
    noisy_or(mixed_BN).sum().backward()
    assert mixed_BN.grad is not None
    assert torch.isfinite(mixed_BN.grad).all()
    z_BN = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(noisy_or, (z_BN,))
    grad_BN = torch.autograd.grad(noisy_or(z_BN).sum(), z_BN)[0]
    p_BN = z_BN.sigmoid()
    p_any_B1 = 1 - (1 - p_BN).prod(dim=1, keepdim=True)
    torch.testing.assert_close(grad_BN, p_BN / p_any_B1)


def test_logits_are_float32_whatever_the_body_computes_in() -> None:
    for rule in NAMED_RULES:
        assert answered(rule, torch.randn(2, 6, dtype=torch.bfloat16)).dtype == torch.float32


def test_the_recipe_decides_channels_targets_dropout_pooling_and_rule() -> None:
    plain = network_of()
    assert plain.get_classifier().out_features == 6
    assert (plain.body.dropout.p, plain.any_rule, plain.body.in_chans) == (0.0, "own", 3)
    other = network_of(
        neighbours=1, windows="brain", neighbour_targets=0.1, dropout=0.25, pooling="gem", any_rule="max"
    )
    assert other.get_classifier().out_features == 18
    assert (other.body.dropout.p, other.any_rule, other.body.in_chans) == (0.25, "max", 3)
    assert "body.pool.reduce.p" in dict(other.named_parameters())
    nine = network_of(neighbours=1)
    assert nine(nine.inputs(torch.zeros(2, 3, 32, 32))).shape == (2, 6)


def test_the_recipe_decides_size_and_pretrained_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = timm.create_model("test_vit", in_chans=3).state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    network = network_of(architecture="test_vit", image_px=64, pretrained=str(tmp_path / "weights.safetensors"))
    assert network.body.trunk.patch_embed.grid_size == (4, 4)
    torch.testing.assert_close(network.body.trunk.blocks[0].mlp.fc1.weight, weights["blocks.0.mlp.fc1.weight"])


def test_it_starts_at_the_label_rates_of_each_slice() -> None:
    rates = [0.4, 0.02, 0.1, 0.1, 0.2, 0.3]
    network = network_of(neighbour_targets=0.5)
    start_at_rates(network, rates)
    p_BK = network.eval()(torch.randn(2, 3, 32, 32)).sigmoid()
    torch.testing.assert_close(p_BK, torch.tensor(rates).repeat(3).expand(2, -1))


def test_the_head_is_pooling_and_classifier_and_windows_are_not() -> None:
    classifier = ["body.classifier.weight", "body.classifier.bias"]
    assert head_parameters(network_of(learnable_windows=True)) == classifier
    assert head_parameters(network_of(pooling="gem")) == ["body.pool.reduce.p", *classifier]


def test_norms_are_those_of_the_network_and_nothing_else_is() -> None:
    tiny = norm_parameters(network_of())
    assert tiny == [f"body.trunk.features.{i}.1.{part}" for i in range(3) for part in ("weight", "bias")]
    for architecture in ("test_resnet", "test_vit", "test_efficientnet", "test_convnext"):
        network = network_of(architecture=architecture)
        expected = [
            f"{prefix}.{name}"
            for prefix, module in network.named_modules()
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
            for name, _ in module.named_parameters(recurse=False)
        ]
        assert norm_parameters(network) == expected
        assert len(expected) > 5


def test_norms_that_are_no_class_of_torch_are_found_and_a_spectral_norm_is_none() -> None:
    body: Any = nn.Sequential(
        RmsNorm(4), GlobalResponseNorm(4), nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
    )
    inputs: Any = nn.Identity()
    assert norm_parameters(Network(inputs, body)) == ["body.0.weight", "body.1.weight", "body.1.bias"]


def test_the_affine_layers_of_a_resmlp_are_its_norms() -> None:
    inputs: Any = nn.Identity()
    body: Any = MlpMixer(img_size=64, embed_dim=24, num_blocks=2, mlp_ratio=4, block_layer=ResBlock, norm_layer=Affine)
    expected = [f"body.{at}.{part}" for at in NORMS_OF_RESMLP for part in ("alpha", "beta")]
    assert norm_parameters(Network(inputs, body)) == expected
    assert norm_parameters(body) == [name.removeprefix("body.") for name in expected]


NORMS_OF_RESMLP = ("blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2", "norm")


class Part(nn.Module):
    """Parameters with two dimensions each, of which some are named or tell of themselves."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "attn_bias", "rel_bias_table", "alpha", "beta", "logit_scale", "temperature", "other"):
            self.register_parameter(name, nn.Parameter(torch.ones(2, 2)))

    def no_weight_decay(self) -> set[str]:
        return {"temp*"}


def test_undecayed_are_shifts_and_scales_windows_norms_and_what_a_part_names() -> None:
    body: Any = nn.ModuleDict({"part": Part(), "norm": nn.LayerNorm((2, 2)), "line": nn.Linear(2, 2)})
    inputs: Any = Part()
    left_out = {"attn_bias", "rel_bias_table", "alpha", "beta", "logit_scale", "temperature"}
    expected = {f"body.part.{name}" for name in left_out} | {"body.norm.weight", "body.norm.bias", "body.line.bias"}
    windows = {f"inputs.{name}" for name, _ in inputs.named_parameters()}
    assert undecayed_parameters(Network(inputs, body)) == expected | windows


@pytest.mark.parametrize(
    "architecture", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "densenet121"]
)
def test_layers_learn_at_the_rates_that_timm_gives_them(architecture: str) -> None:
    decay = 0.6
    network = network_of(architecture=architecture)
    reference = timm.create_model(architecture, in_chans=3, num_classes=6)
    name_of = {id(p): name for name, p in reference.named_parameters()}
    expected = {
        name_of[id(p)]: group["lr_scale"]
        for group in timm.optim.param_groups_layer_decay(reference, layer_decay=decay)
        for p in group["params"]
    }
    scales = layer_scales(network, decay)
    about = reference.default_cfg["classifier"]
    renamed = {name.replace(f"{about}.", "classifier.") for name in expected if name.startswith(f"{about}.")}
    ours = {name.removeprefix("body.").removeprefix("trunk."): scale for name, scale in scales.items()}
    assert renamed == {"classifier.weight", "classifier.bias"}
    assert set(ours) == {name for name in expected if not name.startswith(f"{about}.")} | renamed
    assert all(ours[name] == pytest.approx(scale) for name, scale in expected.items() if name in ours)
    assert ours["classifier.weight"] == 1.0
    assert len(set(ours.values())) > 4


def test_windows_and_pooling_learn_as_fast_as_the_head() -> None:
    scales = layer_scales(network_of(learnable_windows=True, pooling="gem"), 0.5)
    heads = [
        "inputs.center_N",
        "inputs.width_N",
        "body.pool.reduce.p",
        "body.classifier.weight",
        "body.classifier.bias",
    ]
    assert {name: scales.pop(name) for name in heads} == dict.fromkeys(heads, 1.0)
    assert {name.removeprefix("body.trunk.features.")[0]: scale for name, scale in scales.items()} == {
        "0": 0.125,
        "1": 0.25,
        "2": 0.5,
    }


def test_without_decay_every_layer_learns_alike_and_a_network_without_layers_is_refused_with_it() -> None:
    inputs: Any = nn.Identity()
    network = Network(inputs, create_model("poolformer_s12", 3, image_px=64))
    assert set(layer_scales(network, 1.0).values()) == {1.0}
    assert len(layer_scales(network, 1.0)) == len(list(network.parameters()))
    with pytest.raises(
        ConfigError, match=r"which layers MetaFormer has, got layer_lr_decay 0\.5; write layer_lr_decay: 1"
    ):
        layer_scales(network, 0.5)
