"""create_model: any timm name, any input size, weights from a file, and one clear answer where that fails."""

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from ichtune.errors import ConfigError, DataError
from ichtune.models.create import LOWEST_RATE, check_architecture, create_model, start_at_rates


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet43", "unknown architecture 'resnet43'. Did you mean 'resnet"),
        ("tiny_convnets", "Did you mean 'tiny_convnet'"),
        ("qqqqqqqq", "Expected one of ours .*tiny_convnet"),
        ("hf-hub:somebody/something", "unknown architecture 'hf-hub:somebody/something'"),
        ("resnet18.a1_in2k", "'resnet18' has no weights tagged 'a1_in2k'. Did you mean 'a1_in1k'"),
    ],
)
def test_an_unknown_architecture_is_answered_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_architecture(name)


@pytest.mark.parametrize("name", ["tiny_convnet", "test_resnet", "resnet18.a1_in1k"])
def test_a_known_architecture_passes(name: str) -> None:
    check_architecture(name)


@pytest.mark.parametrize("name", ["tiny_convnet", "test_resnet", "test_vit", "test_byobnet"])
def test_it_maps_a_batch_to_six_logits(name: str) -> None:
    model = create_model(name, 9, image_px=64)
    assert model.training
    assert model(torch.zeros(2, 9, 64, 64)).shape == (2, 6)


def test_a_network_of_one_size_is_fitted_to_the_images() -> None:
    model = create_model("vit_tiny_patch16_224", 3, image_px=64)
    model(torch.zeros(2, 3, 64, 64)).sum().backward()


def test_a_network_that_cannot_be_fitted_says_so_with_its_own_size() -> None:
    with pytest.raises(ConfigError, match=r"'mixer_s32_224' cannot take images of image_px 64: .*image_px: 224"):
        create_model("mixer_s32_224", 3, image_px=64)


def test_dropout_reaches_the_network() -> None:
    model = create_model("test_resnet", 1, dropout=0.9)
    x = torch.rand(2, 1, 64, 64)
    assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize("pretrained", [True, "weights.safetensors"])
def test_a_network_of_ours_has_no_pretrained_weights(pretrained: bool | str) -> None:
    with pytest.raises(ConfigError, match=r"'tiny_convnet' has no pretrained weights.*write pretrained: false"):
        create_model("tiny_convnet", 3, pretrained=pretrained)


def write_weights(path: Path, in_chans: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", in_chans=in_chans)
    save_file(model.state_dict(), path)
    return load_file(path)


def test_weights_from_a_file_fill_the_network_and_fit_its_channels(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "weights.safetensors")
    torch.manual_seed(2)
    model = create_model("test_resnet", 9, image_px=64, pretrained=str(tmp_path / "weights.safetensors"))
    state = model.state_dict()
    about: Any = model.pretrained_cfg
    first = about["first_conv"] + ".weight"
    adapted = [name for name in weights if state[name].shape != weights[name].shape]
    assert adapted == [first, *(name for name in weights if name.startswith(about["classifier"]))]
    for name in set(weights) - set(adapted):
        torch.testing.assert_close(state[name], weights[name], rtol=0, atol=0)
    # Three groups of three channels, each a third as strong: an image in every channel excites as much as before.
    torch.testing.assert_close(state[first], weights[first].repeat(1, 3, 1, 1) / 3)
    assert model(torch.zeros(2, 9, 64, 64)).shape == (2, 6)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "weights.safetensors")
    with pytest.raises(
        DataError, match=r"are not those of 'test_vit': \d+ of its \d+ weights are not in the file, the first "
    ):
        create_model("test_vit", 3, pretrained=str(tmp_path / "weights.safetensors"))


def test_weights_that_are_not_there_or_could_run_code_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; expected a safetensors file"):
        create_model("test_resnet", 3, pretrained=str(tmp_path / "weights.safetensors"))
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"must be a \.safetensors file: other formats can run code"):
        create_model("test_resnet", 3, pretrained=str(tmp_path / "weights.pth"))


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(DataError, match=r"cannot load pretrained weights"):
        create_model("test_resnet", 3, pretrained=str(path))


def test_without_network_and_cache_the_ways_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"from timm's hub cache .HF_HUB_OFFLINE is set.*fill the hub cache") as caught:
        create_model("test_resnet", 3, pretrained=True)
    assert "\n" not in str(caught.value)


def test_a_network_that_has_no_weights_anywhere_says_so() -> None:
    with pytest.raises(DataError, match=r"No pretrained weights exist for mobilenetv4_conv_small_035"):
        create_model("mobilenetv4_conv_small_035", 3, pretrained=True)


RATES = [0.4, 0.004, 0.05, 0.0, 1.0, 0.06]


@pytest.mark.parametrize("name", ["tiny_convnet", "test_resnet", "test_vit", "test_efficientnet", "test_byobnet"])
def test_an_untrained_network_answers_with_the_label_rates(name: str) -> None:
    model = create_model(name, 2, image_px=64)
    start_at_rates(model, RATES)
    p_BL = torch.sigmoid(model.eval()(torch.randn(3, 2, 64, 64)))
    expected = torch.tensor(RATES).clamp(LOWEST_RATE, 1 - LOWEST_RATE).expand(3, -1)
    torch.testing.assert_close(p_BL, expected, rtol=1e-4, atol=1e-7)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("last", [torch.nn.Identity(), torch.nn.Linear(4, 6, bias=False)])
def test_a_network_without_such_a_last_layer_is_refused(last: torch.nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"Sequential ends in no linear layer of 6 outputs with a bias"):
        start_at_rates(torch.nn.Sequential(torch.nn.Linear(3, 4), last), RATES)
