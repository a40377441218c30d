"""create_model: the one way to a network, ours or timm's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ichtune.errors import ConfigError, DataError, nearest
from ichtune.labels import N_LABELS
from ichtune.models.architectures import ARCHITECTURES
from ichtune.models.pooling import FeaturePool, ImageClassifier
from ichtune.recipe import POOLINGS

#: The lowest rate that a network starts from: rarer labels are left to be learnt.
LOWEST_RATE = 1e-3


class HasClassifier(Protocol):
    """Any network whose last layer is at hand."""

    def get_classifier(self) -> nn.Linear:
        """Return the last layer."""


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
    pooling: str = "default",
    num_classes: int = N_LABELS,
) -> ImageClassifier:
    """Build a network that maps (B, in_chans, H, W) to logits (B, num_classes).

    Networks that are built for one input size (vision transformers) are fitted to ``image_px``.

    Args:
        architecture: a key of ``ARCHITECTURES`` or any timm name.
        in_chans: input channels; timm adapts the first layer of pretrained weights to them.
        image_px: side of the images that it will get; None keeps the network's own.
        pretrained: False, True (timm's weights from the user's own hub cache) or the path of a safetensors file.
        dropout: dropout before the classifier.
        pooling: ``default``, the network's own, or a key of ``ichtune.models.pooling.POOLS``.
        num_classes: outputs.

    Raises:
        ConfigError: unknown architecture, one that cannot take images of ``image_px`` or cannot be pooled so, or
            pretrained weights asked of a network of ours, which has none.
        DataError: the weights are neither in the hub cache nor at the path.
    """
    check_architecture(architecture)
    if pooling not in POOLINGS:
        raise ConfigError(f"unknown pooling {pooling!r}. {nearest(pooling, POOLINGS)}")
    trunk = _create_trunk(architecture, in_chans, pretrained)
    if pooling == "default":
        pool: nn.Module = nn.Flatten()
        _, given = _try_input_size(trunk, architecture, in_chans, image_px)
        past_head = False
    else:
        pool = _put_pool(trunk, architecture, pooling)
        features, given = _try_input_size(trunk, architecture, in_chans, image_px)
        # Some heads pool whatever they are told, so that only what comes before them is left.
        past_head = given.ndim == 2
        given = features if past_head else given
        if given.ndim == 3 and given.shape[1] <= pool.n_prefix:
            raise ConfigError(_unpoolable(architecture, pooling, "it gives class tokens only"))
    return ImageClassifier(
        trunk,
        pool,
        n_features=pool(given).shape[1],
        num_classes=num_classes,
        dropout=dropout,
        in_chans=in_chans,
        past_head=past_head,
    )


def _create_trunk(architecture: str, in_chans: int, pretrained: bool | str) -> nn.Module:
    if architecture not in ARCHITECTURES:
        return _create_timm_model(architecture, in_chans, pretrained)
    if pretrained is not False:
        raise ConfigError(
            f"architecture {architecture!r} has no pretrained weights, got pretrained: {pretrained!r}; write "
            f"pretrained: false, or take a timm architecture"
        )
    return ARCHITECTURES[architecture](in_chans, 0, 0.0)


def _put_pool(trunk: nn.Module, architecture: str, pooling: str) -> FeaturePool:
    """Take the network's own pooling out and return the one that is to act in its place."""
    # Networks with a class token that do not count it tell of it by the pooling that reads it.
    n_prefix = getattr(trunk, "num_prefix_tokens", int(getattr(trunk, "global_pool", None) == "token"))
    reset: Callable[..., object] = trunk.reset_classifier  # type: ignore[assignment]
    try:
        reset(0, "")
    except (AssertionError, ValueError, TypeError) as error:
        raise ConfigError(_unpoolable(architecture, pooling, str(error) or type(error).__name__)) from error
    return FeaturePool(pooling, channels_end=getattr(trunk, "output_fmt", "") == "NHWC", n_prefix=int(n_prefix))


def _unpoolable(architecture: str, pooling: str, cause: str) -> str:
    return (
        f"architecture {architecture!r} cannot be given the pooling {pooling!r}: {cause.rstrip('.')}; write pooling: "
        f"default, or take another architecture"
    )


def _create_timm_model(architecture: str, in_chans: int, pretrained: bool | str) -> nn.Module:
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
        with _hub_cache_only():
            model: nn.Module = timm.create_model(
                architecture,
                pretrained=pretrained is not False,
                pretrained_cfg_overlay=overlay,
                in_chans=in_chans,
                num_classes=0,
            )
    except (OSError, RuntimeError, SafetensorError) as error:
        if pretrained is False:
            raise
        raise DataError(_pretrained_help(architecture, pretrained, error)) from error
    if isinstance(pretrained, str):
        _check_covered(model, architecture, pretrained)
    return model


@contextmanager
def _hub_cache_only() -> Iterator[None]:
    """Let the hub answer from the user's cache alone: a training must neither fetch anything nor wait for a network."""
    from huggingface_hub import constants

    was_offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline


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


def _try_input_size(
    trunk: nn.Module, architecture: str, in_chans: int, image_px: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit the network to the image's size and return the features of one empty image, and what its head gives."""
    own_px = getattr(trunk, "default_cfg", {}).get("input_size", (0, 0, 0))[-1]
    px = image_px or own_px
    run: Any = trunk
    try:
        if own_px != px and hasattr(trunk, "set_input_size"):
            run.set_input_size(img_size=(px, px))
        with torch.no_grad():
            features = run.eval().forward_features(torch.zeros(1, in_chans, px, px))
            given = run.forward_head(features, pre_logits=True)
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"architecture {architecture!r} cannot take images of image_px {px}: {cause.rstrip('.')}. Its own "
            f"size is {own_px}; write image_px: {own_px}, or take another architecture"
        ) from error
    trunk.train()
    return features, given


def _pretrained_help(architecture: str, pretrained: bool | str, error: Exception) -> str:
    fill = f"python -c \"import timm; timm.create_model('{architecture}', pretrained=True)\""
    options = (
        f"Either (1) fill the hub cache with `{fill}`, where there is a network, and keep HF_HOME, (2) write "
        f"pretrained: path/to/weights.safetensors, or (3) pretrained: false"
    )
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(pretrained, str):
        return f"cannot load pretrained weights of {architecture!r} from the file {pretrained}: {cause}. {options}"
    if not isinstance(error, OSError):  # what the hub raises for what its cache lacks
        return f"cannot load pretrained weights of {architecture!r}: {cause.rstrip('.')}. {options}"
    return f"the hub cache holds no pretrained weights of {architecture!r}, and nothing is fetched unasked. {options}"


@torch.no_grad()
def start_at_rates(model: HasClassifier, rates_L: Sequence[float]) -> None:
    """Let an untrained network answer every slice with the label rates, so that no epoch is spent on learning them.

    The last layer's weights become zero and its bias the log odds of the rates. Most labels are rare: from a random
    start the first hundreds of steps would do nothing but push every probability down.

    With an ``any_rule`` other than ``own``, the answer for ``any`` starts at what the rule makes of the subtypes' rates
    and not at its own rate: by ``max`` at the largest of them, which is too low, and by ``noisy_or`` at the rate of
    independent subtypes, which is too high if one slice often has several.

    Args:
        model: what ``create_model`` or ``create_network`` made.
        rates_L: share of positive slices of each label, in label order; repeated for further blocks of outputs, since
            a neighbouring slice's labels are as rare.

    Raises:
        ConfigError: the network's outputs are no whole number of such blocks.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, section 4.1.
    """
    last = model.get_classifier()
    if last.out_features % len(rates_L):
        raise ConfigError(
            f"{type(model).__name__} has {last.out_features} outputs, which are no blocks of the {len(rates_L)} label "
            f"rates given; give one rate for each of the labels"
        )
    odds_L = torch.logit(torch.tensor(rates_L, dtype=torch.float64).clamp(LOWEST_RATE, 1.0 - LOWEST_RATE))
    last.weight.zero_()
    last.bias.copy_(odds_L.repeat(last.out_features // len(rates_L)))
