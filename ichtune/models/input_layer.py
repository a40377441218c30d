"""InputLayer: from raw Hounsfield units to what the network's first convolution sees.

Dimension key: B batch, S slices seen, I images made of them, N windows, C input channels, H height, W width.
"""

from collections.abc import Iterable

import torch
from torch import nn

from ichtune.errors import ConfigError, DataError
from ichtune.recipe import Recipe
from ichtune.windows import DicomWindow, Window, apply_windows, apply_windows_each

#: Mean and standard deviation of ImageNet's three colours in [0, 1], which networks trained on it were fed with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: A standard deviation of input in [-1, 1] that is only rounding.
_NEVER_VARIES = 1e-6


class InputLayer(nn.Module):
    """Neighbouring slices, windows and normalisation of one recipe, batched and on the device of the batch.

    Learnable windows are two parameters, both 0 at the start, where they change nothing: ``center_N`` moves each centre
    by that share of its window's width, and ``width_N`` is the natural logarithm of a factor on the width, so that no
    step can make a width negative. So one learning rate suits narrow windows and wide ones, and weight decay pulls
    towards the recipe's windows.

    Args:
        recipe: its keys ``windows`` to ``normalisation`` say all that is done here.
    """

    base_N2: torch.Tensor
    is_own_N: torch.Tensor
    mean_C: torch.Tensor
    std_C: torch.Tensor

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        pairs = [[window.center_hu, window.width_hu] for window in recipe.windows]
        is_own = [isinstance(window, DicomWindow) for window in recipe.windows]
        self.has_own = any(is_own)
        self.register_buffer("base_N2", torch.tensor(pairs), persistent=False)
        self.register_buffer("is_own_N", torch.tensor(is_own), persistent=False)
        if recipe.learnable_windows:
            self.center_N = nn.Parameter(torch.zeros(len(pairs)))
            self.width_N = nn.Parameter(torch.zeros(len(pairs)))
        mean_C, std_C = _first_moments(recipe)
        self.register_buffer("mean_C", mean_C, persistent=recipe.normalisation == "data")
        self.register_buffer("std_C", std_C, persistent=recipe.normalisation == "data")

    def forward(
        self, hu_BSHW: torch.Tensor, own_B2: torch.Tensor | None = None, jitter_BN2: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the network's input.

        Args:
            hu_BSHW: the slices seen, in the order of ``recipe.offsets``, in HU; never changed.
            own_B2: centre and width in HU that each slice's file asks for, of which ``dicom`` windows are made. Where
                they are NaN, and without them, a ``dicom`` window is the brain window.
            jitter_BN2: for each window the shift of its centre in shares of its width, and a factor on its width.

        Returns:
            float32 (B, C, H, W), channels_last, with C = ``recipe.n_channels``; in [-1, 1] unless normalised.

        Raises:
            DataError: another number of slices than the recipe sees.
        """
        x_BCHW = self.windowed(hu_BSHW, own_B2, jitter_BN2)
        if self.recipe.normalisation == "none":
            return x_BCHW
        mean, std = self.mean_C[:, None, None], self.std_C[:, None, None]
        return (x_BCHW - mean) / std if x_BCHW.requires_grad else x_BCHW.sub_(mean).div_(std)

    def windowed(
        self, hu_BSHW: torch.Tensor, own_B2: torch.Tensor | None = None, jitter_BN2: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the input in [-1, 1] before it is normalised; takes and raises what ``forward`` does."""
        recipe = self.recipe
        images_BIHW = self._images(hu_BSHW)
        paired = recipe.channel_layout == "paired"
        if not (recipe.learnable_windows or jitter_BN2 is not None or (self.has_own and own_B2 is not None)):
            return apply_windows(images_BIHW, recipe.windows, recipe.window_shape, paired)
        center_BN, width_BN = self._numbers(own_B2, jitter_BN2)
        return apply_windows_each(images_BIHW, center_BN, width_BN, recipe.window_shape, paired)

    def _images(self, hu_BSHW: torch.Tensor) -> torch.Tensor:
        """What windows look at: the slices, their mean, or the slice itself and that mean."""
        recipe = self.recipe
        if hu_BSHW.shape[1] != len(recipe.offsets):
            raise DataError(
                f"a batch of {hu_BSHW.shape[1]} slices for each sample, but the recipe sees {len(recipe.offsets)} "
                f"(neighbours {recipe.neighbours}, neighbour_side {recipe.neighbour_side}); read the slices anew"
            )
        hu_BSHW = hu_BSHW.float()
        if recipe.neighbour_use == "stack":
            return hu_BSHW
        mean_B1HW = hu_BSHW.mean(dim=1, keepdim=True)
        if recipe.neighbour_use == "mean":
            return mean_B1HW
        itself = recipe.offsets.index(0)
        return torch.cat([hu_BSHW[:, itself : itself + 1], mean_B1HW], dim=1)

    def _numbers(
        self, own_B2: torch.Tensor | None, jitter_BN2: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Centres and widths, (B, N) or (1, N): the recipe's or the file's, moved by what was learnt, then jittered."""
        center_BN, width_BN = self.base_N2[None, :, 0], self.base_N2[None, :, 1]
        if self.has_own and own_B2 is not None:
            own_B2 = own_B2.to(self.base_N2)
            is_given_B1 = (torch.isfinite(own_B2).all(dim=1) & (own_B2[:, 1] > 0))[:, None]
            center_BN = torch.where(self.is_own_N & is_given_B1, own_B2[:, :1], center_BN)
            width_BN = torch.where(self.is_own_N & is_given_B1, own_B2[:, 1:], width_BN)
        if self.recipe.learnable_windows:
            center_BN, width_BN = center_BN + width_BN * self.center_N, width_BN * self.width_N.exp()
        if jitter_BN2 is not None:
            jitter_BN2 = jitter_BN2.to(self.base_N2)
            center_BN, width_BN = center_BN + width_BN * jitter_BN2[..., 0], width_BN * jitter_BN2[..., 1]
        return center_BN, width_BN

    @torch.no_grad()
    def learnt_windows(self) -> tuple[Window, ...]:
        """Return the windows as they are by now: the recipe's, moved by what was learnt of them."""
        center_BN, width_BN = self._numbers(None, None)
        return tuple(Window(*pair) for pair in torch.stack([center_BN[0], width_BN[0]], dim=1).tolist())

    @torch.no_grad()
    def fit_moments(self, x_batches: Iterable[torch.Tensor]) -> None:
        """Set each channel's mean and standard deviation, by which normalisation ``data`` scales; 0 and 1 before.

        A channel that never varies keeps a standard deviation of 1.

        Args:
            x_batches: training input as ``windowed`` returns it, (B, C, H, W) each.

        Raises:
            ConfigError: the recipe does not normalise by the data's moments.
            DataError: no batch.
        """
        if self.recipe.normalisation != "data":
            raise ConfigError(
                f"moments are of use with normalisation 'data' only, got {self.recipe.normalisation!r}; leave them out"
            )
        count, mean_C, squares_C = 0, torch.zeros(1), torch.zeros(1)
        for x_BCHW in x_batches:
            n = x_BCHW.numel() // x_BCHW.shape[1]
            var_C, its_mean_C = (m.double().cpu() for m in torch.var_mean(x_BCHW, dim=(0, 2, 3), correction=0))
            apart_C = its_mean_C - mean_C
            squares_C = squares_C + n * var_C + apart_C.square() * (count * n / (count + n))
            mean_C = mean_C + apart_C * (n / (count + n))
            count += n
        if count == 0:
            raise DataError("no training input to take moments of; expected at least one batch")
        std_C = (squares_C / count).sqrt()
        self.mean_C.copy_(mean_C)
        self.std_C.copy_(torch.where(std_C > _NEVER_VARIES, std_C, 1.0))


def _first_moments(recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """Moments of input in [-1, 1]; those of ImageNet's colours in turn, whatever the number of channels."""
    n_channels = recipe.n_channels
    if recipe.normalisation != "imagenet":
        return torch.zeros(n_channels), torch.ones(n_channels)
    turns = range(n_channels)
    mean_C = torch.tensor([IMAGENET_MEAN[c % len(IMAGENET_MEAN)] for c in turns])
    std_C = torch.tensor([IMAGENET_STD[c % len(IMAGENET_STD)] for c in turns])
    return 2.0 * mean_C - 1.0, 2.0 * std_C
