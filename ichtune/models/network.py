"""Network: from the slices' Hounsfield units to logits, and which of its parameters belong to what.

Dimension key: B batch, C channels, H height, W width, L labels, K outputs (L for each slice judged), D embedding.
"""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from ichtune.errors import ConfigError
from ichtune.labels import ANY, LABELS, N_LABELS
from ichtune.models.create import create_model
from ichtune.models.input_layer import InputLayer
from ichtune.models.pooling import ImageClassifier
from ichtune.recipe import Recipe

_ANY = LABELS.index(ANY)
_NORM_BY_ANOTHER_NAME = "affine"
#: Ends of the names of parameters that shift or scale features, whatever their number of dimensions.
_SHIFTS_AND_SCALES = ("bias", "bias_table", "alpha", "beta", "logit_scale")


def _split(logits_BL: torch.Tensor) -> torch.Tensor:
    return torch.cat([logits_BL[:, :_ANY], logits_BL[:, _ANY + 1 :]], dim=1)


def largest_subtype(subtypes_BN: torch.Tensor) -> torch.Tensor:
    """Return the largest of the subtypes' logits, (B,)."""
    return subtypes_BN.amax(dim=1)


def noisy_or(subtypes_BN: torch.Tensor) -> torch.Tensor:
    """Return the logit of ``1 - prod(1 - p)``, (B,): that of any bleed, were the subtypes independent.

    Two odds a and b make ``(1 + a) (1 + b) - 1 = a + b + ab``, so that logits never leave their own scale, and no
    probability is rounded to 0 or 1.
    """
    result_B = subtypes_BN[:, 0]
    for logit_B in subtypes_BN[:, 1:].unbind(dim=1):
        result_B = torch.logsumexp(torch.stack([result_B, logit_B, result_B + logit_B]), dim=0)
    return result_B


#: Where the logit of ``any`` comes from, by the name that ``recipe.any_rule`` gives it; ``own`` leaves it as it is.
ANY_RULES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"max": largest_subtype, "noisy_or": noisy_or}


class Network(nn.Module):
    """A recipe's input layer and its network.

    Args:
        inputs: makes the network's input of the slices' HU; call it first, since mixing comes between the two.
        body: from that input to logits.
        any_rule: ``own`` or a key of ``ANY_RULES``.
    """

    def __init__(self, inputs: InputLayer, body: ImageClassifier, any_rule: str = "own") -> None:
        super().__init__()
        self.inputs = inputs
        self.body = body
        self.any_rule = any_rule

    def get_classifier(self) -> nn.Linear:
        """Return the last layer."""
        return self.body.get_classifier()

    def embed(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return pooled features (B, D) of what ``inputs`` gave, before dropout and the last layer."""
        return self.body.forward_head(self.body.forward_features(x_BCHW), pre_logits=True)

    def answer(self, e_BD: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of pooled features, float32.

        Returns:
            L columns for the slice itself and, with neighbours as targets, L for the slice below and L for the one
            above.
        """
        logits_BK = self.body.answer(e_BD).float()
        if self.any_rule == "own":
            return logits_BK
        blocks = []
        for block_BL in logits_BK.split(N_LABELS, dim=1):
            any_B1 = ANY_RULES[self.any_rule](_split(block_BL))[:, None]
            blocks += [block_BL[:, :_ANY], any_B1, block_BL[:, _ANY + 1 :]]
        return torch.cat(blocks, dim=1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of what ``inputs`` gave."""
        return self.answer(self.embed(x_BCHW))


def create_network(recipe: Recipe) -> Network:
    """Build the network of a recipe.

    Raises:
        ConfigError, DataError: what ``create_model`` raises.
    """
    body = create_model(
        recipe.architecture,
        recipe.n_channels,
        image_px=recipe.image_px,
        pretrained=recipe.pretrained,
        dropout=recipe.dropout,
        pooling=recipe.pooling,
        num_classes=recipe.n_targets * N_LABELS,
    )
    return Network(InputLayer(recipe), body, recipe.any_rule)


def head_parameters(network: Network) -> list[str]:
    """Return the names of the parameters of the pooling and the last layer."""
    return [name for name, _ in network.named_parameters() if name.startswith(("body.pool.", "body.classifier."))]


def _inside(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def norm_parameters(network: nn.Module) -> list[str]:
    """Return the names of the parameters of normalisation layers, torch's and timm's many own.

    They share no class: what they share is the word in the name of their class or of one that it is derived from.
    ResMLP's ``Affine`` is one too: a layer norm without the statistics.
    """
    names = []
    for prefix, module in network.named_modules():
        kinds = [kind.__name__.lower() for kind in type(module).__mro__]
        if any("norm" in kind for kind in kinds) or _NORM_BY_ANOTHER_NAME in kinds:
            names += [_inside(prefix, name) for name, _ in module.named_parameters(recurse=False)]
    return names


def undecayed_parameters(network: nn.Module) -> set[str]:
    """Return the names of the parameters that are not to be pulled towards zero.

    They are vectors and scalars, whatever the input layer learns (its windows, in HU), parameters of norms, biases and
    scales by their names, some of which have more than one dimension, and what timm's networks and their parts name in
    ``no_weight_decay``: position embeddings, class tokens, relative positions.
    """
    found = set(norm_parameters(network))
    named = [name for name, _ in network.named_parameters()]
    for name, parameter in network.named_parameters():
        is_shift = name.rpartition(".")[2].endswith(_SHIFTS_AND_SCALES)
        if parameter.ndim < 2 or is_shift or name.startswith("inputs."):
            found.add(name)
    for prefix, module in network.named_modules():
        own: Any = getattr(module, "no_weight_decay", None)
        patterns = [_inside(prefix, pattern) for pattern in own()] if callable(own) else []
        found.update(name for name in named if any(fnmatchcase(name, pattern) for pattern in patterns))
    return found


class _Names:
    """Stands where timm wants a module but reads its parameters' names only."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def named_parameters(self) -> Iterator[tuple[str, None]]:
        return ((name, None) for name in self.names)


def layer_scales(network: Network, decay: float) -> dict[str, float]:
    """Return each parameter's learning rate as a share of the head's.

    A layer's share is ``decay`` to the power of its distance from the head, in layers as timm groups them. Pooling,
    last layer and learnable windows have 1.

    Args:
        network: what ``create_network`` made.
        decay: share of each layer's learning rate in that of the layer after it.

    Raises:
        ConfigError: timm does not say which layers the architecture has.

    Source: Clark et al., ELECTRA, ICLR 2020, appendix A; ``timm.optim.param_groups_layer_decay``.
    """
    from timm.models import group_parameters

    scales = {name: 1.0 for name, _ in network.named_parameters()}
    if decay == 1.0:
        return scales
    trunk: Any = network.body.trunk
    if not hasattr(trunk, "group_matcher"):
        raise ConfigError(
            f"timm does not say which layers {type(trunk).__name__} has, got layer_lr_decay {decay:g}; write "
            f"layer_lr_decay: 1, or take another architecture"
        )
    names = [name for name, _ in trunk.named_parameters()]
    last = trunk.default_cfg["classifier"]
    # The trunk has lost its classifier, whose place is one above the trunk's last layer.
    last_name = f"{last if isinstance(last, str) else last[0]}.weight"
    holder: Any = _Names([*names, last_name])
    group_of = group_parameters(holder, trunk.group_matcher(coarse=False), reverse=True)
    top = max(group_of.values())
    return scales | {f"body.trunk.{name}": decay ** (top - group_of[name]) for name in names}
