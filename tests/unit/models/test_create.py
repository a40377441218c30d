"""create_model: any timm name, any input size, weights from a file, and one clear answer where that fails."""

import socket
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import timm.models
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


@pytest.mark.parametrize("in_chans", [1, 3, 9])
@pytest.mark.parametrize(
    "name",
    ["tiny_convnet", "test_resnet", "test_vit", "test_byobnet", "test_efficientnet", "test_convnext", "test_mambaout"],
)
def test_it_maps_a_batch_to_six_logits(name: str, in_chans: int) -> None:
    model = create_model(name, in_chans, image_px=64)
    assert model.training
    assert model(torch.zeros(2, in_chans, 64, 64)).shape == (2, 6)


large = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        "efficientnet_b0",
        "convnext_atto",
        "tf_efficientnetv2_b0",
        "maxvit_pico_rw_256",
        pytest.param("resnext50_32x4d", marks=large),
        pytest.param("seresnext50_32x4d", marks=large),
        pytest.param("res2net50_26w_4s", marks=large),
        pytest.param("densenet121", marks=large),
        pytest.param("swin_tiny_patch4_window7_224", marks=large),
        pytest.param("swinv2_tiny_window8_256", marks=large),
        pytest.param("maxvit_tiny_tf_512", marks=large),
        *(pytest.param(f"efficientnet_b{size}", marks=large) for size in range(1, 5)),
    ],
)
def test_each_family_of_the_winners_takes_nine_channels_under_another_pooling(name: str) -> None:
    model = create_model(name, 9, image_px=64, pooling="concat", num_classes=18).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 9, 64, 64)).shape == (2, 18)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_byobnet"])
def test_under_its_own_pooling_it_computes_what_the_network_of_timm_does(name: str) -> None:
    torch.manual_seed(0)
    reference: Any = timm.create_model(name, in_chans=2, num_classes=6).eval()
    model = create_model(name, 2).eval()
    missing, _ = model.trunk.load_state_dict(reference.state_dict(), strict=False)
    assert missing == []
    model.classifier.load_state_dict(reference.get_classifier().state_dict())
    x = torch.randn(2, 2, *reference.default_cfg["input_size"][1:])
    torch.testing.assert_close(model(x), reference(x))


@pytest.mark.parametrize("name", ["efficientvit_b0", "coat_lite_tiny"])
def test_a_network_that_can_only_be_pooled_its_own_way_says_so(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' cannot be given the pooling 'max': .*; write pooling: default"):
        create_model(name, 3, pooling="max")


def test_a_network_that_gives_class_tokens_only_has_nothing_to_pool() -> None:
    with pytest.raises(ConfigError, match=r"'pit_ti_224' cannot be given the pooling 'gem': it gives class tokens"):
        create_model("pit_ti_224", 3, pooling="gem")


def test_an_unknown_pooling_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown pooling 'averag'\. Did you mean 'average'"):
        create_model("tiny_convnet", 3, pooling="averag")


def test_a_network_of_one_size_is_fitted_to_the_images() -> None:
    model = create_model("vit_tiny_patch16_224", 3, image_px=64)
    model(torch.zeros(2, 3, 64, 64)).sum().backward()


def test_a_network_that_cannot_be_fitted_says_so_with_its_own_size() -> None:
    with pytest.raises(ConfigError, match=r"'mixer_s32_224' cannot take images of image_px 64: .*image_px: 224"):
        create_model("mixer_s32_224", 3, image_px=64)


def test_dropout_reaches_the_network() -> None:
    x = torch.rand(2, 1, 64, 64)
    model = create_model("test_resnet", 1, dropout=0.9)
    assert not torch.equal(model(x), model(x))
    model = create_model("test_resnet", 1)
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("pretrained", [True, "weights.safetensors"])
def test_a_network_of_ours_has_no_pretrained_weights(pretrained: bool | str) -> None:
    with pytest.raises(ConfigError, match=r"'tiny_convnet' has no pretrained weights.*write pretrained: false"):
        create_model("tiny_convnet", 3, pretrained=pretrained)


def write_weights(path: Path, name: str = "test_resnet") -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    save_file(timm.create_model(name, in_chans=3).state_dict(), path)
    return load_file(path)


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("pooling", ["default", "gem"])
@pytest.mark.parametrize("in_chans", [1, 3, 9])
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_weights_from_a_file_fill_the_network_and_fit_its_channels(
    name: str, in_chans: int, pooling: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    weights = write_weights(path, name)
    torch.manual_seed(2)
    model = create_model(name, in_chans, image_px=160, pretrained=str(path), pooling=pooling)
    about: Any = model.trunk.pretrained_cfg
    first = about["first_conv"] + ".weight"
    weights[first] = timm.models.adapt_input_conv(in_chans, weights[first])
    state = model.trunk.state_dict()
    assert set(weights) - set(state) == {f"{about['classifier']}.{part}" for part in ("weight", "bias")}
    for key in state:
        torch.testing.assert_close(state[key], weights[key], rtol=0, atol=0)
    assert model(torch.zeros(2, in_chans, 160, 160)).shape == (2, 6)


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


def no_network(*_: object, **__: object) -> None:
    raise AssertionError("the network was asked")


def test_without_a_cached_copy_the_ways_out_are_named_and_the_network_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"the hub cache holds no pretrained weights of 'test_resnet'") as caught:
        create_model("test_resnet", 3, pretrained=True)
    assert "pretrained: path/to/weights.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_a_filled_hub_cache_is_used_and_the_network_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = timm.create_model("test_resnet", in_chans=3)
    folder = tmp_path / f"models--{held.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(held.state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    model = create_model("test_resnet", 3, pretrained=True)
    names = [name for name, _ in held.named_parameters() if not name.startswith("fc.")]
    assert len(names) > 20
    for name in names:
        assert torch.equal(dict(model.trunk.named_parameters())[name], dict(held.named_parameters())[name]), name


def test_a_network_that_has_no_weights_anywhere_says_so() -> None:
    with pytest.raises(DataError, match=r"No pretrained weights exist for mobilenetv4_conv_small_035"):
        create_model("mobilenetv4_conv_small_035", 3, pretrained=True)


RATES = [0.4, 0.004, 0.05, 0.0, 1.0, 0.06]


@pytest.mark.parametrize("num_classes", [6, 18])
@pytest.mark.parametrize("name", ["tiny_convnet", "test_resnet", "test_vit", "test_efficientnet", "test_byobnet"])
def test_an_untrained_network_answers_with_the_label_rates(name: str, num_classes: int) -> None:
    model = create_model(name, 2, image_px=64, num_classes=num_classes)
    start_at_rates(model, RATES)
    p_BK = torch.sigmoid(model.eval()(torch.randn(3, 2, 64, 64)))
    expected = torch.tensor(RATES * (num_classes // 6)).clamp(LOWEST_RATE, 1 - LOWEST_RATE).expand(3, -1)
    torch.testing.assert_close(p_BK, expected, rtol=1e-4, atol=1e-7)
    assert all(p.requires_grad for p in model.parameters())


def test_outputs_that_are_no_blocks_of_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"ImageClassifier has 8 outputs, which are no blocks of the 6 label rates"):
        start_at_rates(create_model("tiny_convnet", 3, num_classes=8), RATES)
