"""create_model: the one way to a network, ours or timm's."""

import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ichtune.errors import ConfigError, DataError, nearest
from ichtune.labels import N_LABELS
from ichtune.models.architectures import ARCHITECTURES

#: The lowest rate that a network starts from: rarer labels are left to be learnt.
LOWEST_RATE = 1e-3


def check_architecture(name: str) -> None:
    """Raise ``ConfigError`` naming the nearest known one unless the architecture exists."""
    if name in ARCHITECTURES:
        return
    import timm

    network, _, tag = name.partition(".")
    if not timm.is_model(network):
        close = get_close_matches(name, {*ARCHITECTURES, *timm.list_models()}, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"unknown architecture {name!r}. {hint}Expected one of ours ({', '.join(sorted(ARCHITECTURES))}) or "
            f"any timm name; list those with `python -c 'import timm; print(timm.list_models())'`"
        )
    if tag:
        tags = [known.partition(".")[2] for known in timm.list_models(f"{network}.*", pretrained=True)]
        if tag not in tags:
            raise ConfigError(f"architecture {network!r} has no weights tagged {tag!r}. {nearest(tag, tags)}")


def create_model(
    architecture: str,
    in_chans: int,
    *,
    image_px: int | None = None,
    pretrained: bool | str = False,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a network that maps (B, in_chans, H, W) to logits (B, 6).

    Networks that are built for one input size (vision transformers) are fitted to ``image_px``.

    Args:
        architecture: a key of ``ARCHITECTURES`` or any timm name.
        in_chans: input channels; timm adapts the first layer of pretrained weights to them.
        image_px: side of the images that it will get; None keeps the network's own.
        pretrained: False, True (timm's weights from the user's own hub cache) or the path of a safetensors file.
        dropout: dropout before the classifier.

    Raises:
        ConfigError: unknown architecture, one that cannot take images of ``image_px``, or pretrained weights asked of
            a network of ours, which has none.
        DataError: the weights are neither in the hub cache nor at the path.
    """
    check_architecture(architecture)
    if architecture in ARCHITECTURES:
        if pretrained is not False:
            raise ConfigError(
                f"architecture {architecture!r} has no pretrained weights, got pretrained: {pretrained!r}; write "
                f"pretrained: false, or take a timm architecture"
            )
        return ARCHITECTURES[architecture](in_chans, N_LABELS, dropout)
    model = _create_timm_model(architecture, in_chans, pretrained, dropout)
    if image_px is not None:
        _fit_input_size(model, architecture, in_chans, image_px)
    return model


def _create_timm_model(architecture: str, in_chans: int, pretrained: bool | str, dropout: float) -> nn.Module:
    import timm

    overlay = None
    if isinstance(pretrained, str):
        if not Path(pretrained).is_file():
            raise DataError(f"pretrained weights {pretrained!r}: no such file; expected a safetensors file")
        if Path(pretrained).suffix != ".safetensors":
            raise ConfigError(
                f"pretrained weights {pretrained!r} must be a .safetensors file: other formats can run code when "
                f"they are loaded; convert it with safetensors.torch.save_file"
            )
        overlay = {"file": pretrained}
    try:
        model: nn.Module = timm.create_model(
            architecture,
            pretrained=pretrained is not False,
            pretrained_cfg_overlay=overlay,
            in_chans=in_chans,
            num_classes=N_LABELS,
            drop_rate=dropout,
        )
    except (OSError, RuntimeError, SafetensorError) as error:
        if pretrained is False:
            raise
        raise DataError(_pretrained_help(architecture, pretrained, error)) from error
    if isinstance(pretrained, str):
        _check_covered(model, architecture, pretrained)
    return model


def _check_covered(model: nn.Module, architecture: str, path: str) -> None:
    """Refuse a file that lacks weights of the network: timm would leave them random and say nothing."""
    with safe_open(path, framework="pt") as file:
        held = set(file.keys())
    classifier = getattr(model, "default_cfg", {}).get("classifier") or ()
    own = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    names = [name for name, _ in model.named_parameters() if not name.startswith(own)]
    missing = [name for name in names if name not in held]
    if missing:
        raise DataError(
            f"pretrained weights {path!r} are not those of {architecture!r}: {len(missing)} of its {len(names)} "
            f"weights are not in the file, the first {missing[0]!r}; name that network's file, in timm's own layout"
        )


def _fit_input_size(model: nn.Module, architecture: str, in_chans: int, image_px: int) -> None:
    own_px = getattr(model, "default_cfg", {}).get("input_size", (0, 0, 0))[-1]
    try:
        if own_px != image_px and hasattr(model, "set_input_size"):
            fit: Callable[..., object] = model.set_input_size  # type: ignore[assignment]
            fit(img_size=(image_px, image_px))
        with torch.no_grad():
            model.eval()(torch.zeros(1, in_chans, image_px, image_px))
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"architecture {architecture!r} cannot take images of image_px {image_px}: {cause.rstrip('.')}. Its own "
            f"size is {own_px}; write image_px: {own_px}, or take another architecture"
        ) from error
    model.train()


def _pretrained_help(architecture: str, pretrained: bool | str, error: Exception) -> str:
    offline = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "no network or no cached copy"
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    where = f"the file {pretrained}" if isinstance(pretrained, str) else f"timm's hub cache ({offline})"
    return (
        f"cannot load pretrained weights of {architecture!r} from {where}: {cause}. Either (1) fill the hub cache on "
        f"a machine with a network, (2) write pretrained: path/to/weights.safetensors, or (3) pretrained: false"
    )


@torch.no_grad()
def start_at_rates(model: nn.Module, rates_L: Sequence[float]) -> None:
    """Let an untrained network answer every slice with the label rates, so that no epoch is spent on learning them.

    The last layer's weights become zero and its bias the log odds of the rates. Most labels are rare: from a random
    start the first hundreds of steps would do nothing but push every probability down.

    Args:
        model: what ``create_model`` made.
        rates_L: share of positive slices of each label, in label order.

    Raises:
        ConfigError: the network's last layer is neither linear nor a 1x1 convolution with a bias.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, section 4.1.
    """
    last = next(
        (m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear | nn.Conv2d) and _answers(m)), None
    )
    if last is None or last.bias is None:
        raise ConfigError(
            f"{type(model).__name__} ends in no linear layer of {N_LABELS} outputs with a bias, which ichtune needs to "
            f"start from the label rates; take another architecture"
        )
    odds_L = torch.logit(torch.tensor(rates_L, dtype=torch.float64).clamp(LOWEST_RATE, 1.0 - LOWEST_RATE))
    last.weight.zero_()
    last.bias.copy_(odds_L)


def _answers(layer: nn.Linear | nn.Conv2d) -> bool:
    return (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels) == N_LABELS
