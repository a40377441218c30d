"""adapt_weights: make the weights of one network fit another of the same architecture.

Dimension key: K outputs, D embedding, and for convolutions (outputs, inputs, height, width).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ichtune.errors import DataError
from ichtune.labels import N_LABELS
from ichtune.models.network import Network

_BODY = "body."
_TRUNK = "body.trunk."
_CLASSIFIER = "body.classifier."
#: Share of the body's tensors that must fit; of another architecture's few do.
LEAST_SHARE = 0.5


def adapt_weights(tensors: Mapping[str, torch.Tensor], network: Network) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Fit the weights of a network of another image size, other windows or other targets.

    Input channels of the first convolution are repeated or summed so that an image which is the same in every channel
    is answered as before. The last layer's rows for the slice itself serve each of the slices that are judged now.
    Position embeddings and tables are resampled by timm. Whatever else has another shape is left out.

    Args:
        tensors: state of a network that ``create_network`` made.
        network: the network to start; not changed.

    Returns:
        Tensors for ``network.load_state_dict(..., strict=False)``, and one line for a log about each tensor that keeps
        its fresh start.

    Raises:
        DataError: less than half of the body's tensors fit, so that this is another architecture.
    """
    state = network.state_dict()
    fitted: dict[str, torch.Tensor] = {}
    left_out: list[str] = []
    for name, own in state.items():
        old = tensors.get(name)
        new = None if old is None else _fit(name, old, own, network)
        if new is not None and new.shape == own.shape:
            fitted[name] = new.to(own.dtype)
        elif old is None:
            left_out.append(f"{name}: not in the checkpoint")
        else:
            left_out.append(f"{name}: {tuple(old.shape)} in the checkpoint, {tuple(own.shape)} here")
    left_out += [f"{name}: not in this network" for name in tensors if name not in state]
    _check_share(tensors, state, fitted, network)
    return fitted, left_out


def _fit(name: str, old: torch.Tensor, own: torch.Tensor, network: Network) -> torch.Tensor | None:
    """Return the tensor in the shape that the network wants, or None where no rule leads there."""
    if name.startswith(_CLASSIFIER):
        return _repeat_rows(old, own)
    if old.shape == own.shape:
        return old
    if not name.startswith(_TRUNK) or old.ndim != own.ndim:
        return None
    if _is_first_convolution(name, own, network):
        return fit_channels(old, own.shape[1])
    if name.endswith("pos_embed"):
        return _resample_positions(old, own, network.body.trunk)
    if name.endswith("relative_position_bias_table"):
        return _resample_table(old, own, network.get_submodule(name.rpartition(".")[0]))
    return None


def fit_channels(weight: torch.Tensor, in_chans: int) -> torch.Tensor:
    """Return a convolution's weight for another number of input channels.

    More channels: each takes the weights of channel i modulo the old number, divided by how many share them. Fewer:
    each takes the sum of the channels that it stands for. Since windows follow each other within a slice, a window's
    weights stay with that window when neighbours come or go.

    Args:
        weight: (outputs, inputs, height, width).
        in_chans: input channels wanted.

    Returns:
        A weight whose sum over inputs is that of the old one: an image that is the same in every channel is answered
        as before.
    """
    n_old = weight.shape[1]
    if in_chans < n_old:
        return torch.stack([weight[:, i::in_chans].sum(dim=1) for i in range(in_chans)], dim=1)
    source = torch.arange(in_chans) % n_old
    sharing = torch.bincount(source, minlength=n_old)[source]
    return weight[:, source] / sharing[:, None, None].to(weight)


def _is_first_convolution(name: str, own: torch.Tensor, network: Network) -> bool:
    first = network.body.trunk.default_cfg.get("first_conv") or ()
    names = (first,) if isinstance(first, str) else tuple(first)
    is_named = name in {f"{_TRUNK}{conv}.weight" for conv in names}
    return is_named and own.ndim == 4 and own.shape[1] == network.body.in_chans


def _repeat_rows(old: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return the rows of the slice itself, once for each slice that is judged."""
    if old.shape == own.shape:
        return old
    return old[:N_LABELS].repeat(own.shape[0] // N_LABELS, *[1] * (own.ndim - 1))


def _resample_positions(old: torch.Tensor, own: torch.Tensor, trunk: Any) -> torch.Tensor | None:
    from timm.layers import resample_abs_pos_embed, resample_abs_pos_embed_nhwc

    if old.shape[-1] != own.shape[-1]:
        return None
    if own.ndim == 4:
        return resample_abs_pos_embed_nhwc(old, list(own.shape[1:3]))
    grid = getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
    if own.ndim != 3 or grid is None:
        return None
    n_prefix = own.shape[1] - grid[0] * grid[1]
    side = round(max(old.shape[1] - n_prefix, 0) ** 0.5)
    if n_prefix < 0 or side * side != old.shape[1] - n_prefix:
        return None
    return resample_abs_pos_embed(old, new_size=list(grid), old_size=[side, side], num_prefix_tokens=n_prefix)


def _resample_table(old: torch.Tensor, own: torch.Tensor, module: nn.Module) -> torch.Tensor | None:
    from timm.layers import resize_rel_pos_bias_table

    window: Any = getattr(module, "window_size", None)
    heads = 0 if own.ndim == 3 else -1
    if window is None or old.shape[heads] != own.shape[heads]:
        return None
    return resize_rel_pos_bias_table(old, new_window_size=window, new_bias_shape=tuple(own.shape))


def _check_share(
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    fitted: Mapping[str, torch.Tensor],
    network: Network,
) -> None:
    wanted = [name for name in state if name.startswith(_BODY)]
    missing = [name for name in wanted if name not in fitted]
    if len(missing) <= (1 - LEAST_SHARE) * len(wanted):
        return
    first = missing[0]
    there = f"{first!r} of shape {tuple(tensors[first].shape)}" if first in tensors else f"no {first!r}"
    raise DataError(
        f"the checkpoint is not one of this network ({type(network.body.trunk).__name__}): "
        f"{len(wanted) - len(missing)} of its {len(wanted)} tensors fit, expected at least half. The checkpoint has "
        f"{there}, the network one of shape {tuple(state[first].shape)}; start from a checkpoint of the same "
        f"architecture"
    )
