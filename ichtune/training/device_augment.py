"""Augmentation of whole batches in Hounsfield units, on the device of the batch, before windows are applied.

Every draw comes from the seed through generators of the CPU: it is the same on every device, and the global generators
are neither read nor moved. Slices that are seen together take the same transform and stay registered. Each key has
draws of its own, so that turning one on changes nothing that another draws.

Dimension key: B batch, S slices seen, H height, W width, N windows, M slices that a change acts on, O blanked squares.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import grid_sample

from ichtune.data.cache.resize import AIR_HU
from ichtune.errors import ConfigError
from ichtune.recipe import Recipe

#: What is drawn for each sample as one uniform number. A new one goes to the end, or the draws of every run change.
_DECISIONS = (
    *("flip_slices", "flip", "flip_vertical", "transpose", "geometry", "degrees", "zoom", "shift_rows"),
    *("shift_columns", "gain", "cutout", "n_holes"),
)
#: Streams of random numbers from one seed.
_DECIDE, _HOLES, _NOISE, _JITTER = range(4)

Draws = dict[str, torch.Tensor]


def check_augmentation(recipe: Recipe) -> None:
    """Raise ``ConfigError`` where reversing the slices means nothing for those that the recipe sees."""
    is_symmetric = recipe.neighbours > 0 and recipe.neighbour_side == "both" and recipe.neighbour_use == "stack"
    if recipe.flip_slices > 0 and not is_symmetric:
        raise ConfigError(
            f"recipe key 'flip_slices' reverses stacked neighbours on both sides, got neighbours {recipe.neighbours}, "
            f"neighbour_side {recipe.neighbour_side} and neighbour_use {recipe.neighbour_use}; write flip_slices: 0, "
            f"or neighbours of at least 1, neighbour_side: both and neighbour_use: stack"
        )


def augment_on_device(hu_BSHW: torch.Tensor, recipe: Recipe, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment a training batch: mirrored, turned, moved, made brighter, noisier, and with squares of air.

    In this order, each where its key is above 0: flip_slices, flip, flip_vertical, transpose; rotation, zoom and shift
    in one bilinear resampling; gain, noise, cutout. What comes into view from outside is air, and nothing falls below
    it. Mirroring and transposing move pixels and resample none.

    Args:
        hu_BSHW: (B, S, H, W) in HU; square images where they are transposed. Never changed.
        recipe: its augmentation keys.
        seed: seed of this batch, at least 0.

    Returns:
        The batch as float32, or ``hu_BSHW`` itself where the recipe asks for nothing; and bool (B,) that is true where
        the order of the slices was reversed. Both lie on the batch's device.
    """
    draws = _decide(seed, len(hu_BSHW))
    is_reversed_B = draws["flip_slices"] < recipe.flip_slices
    exact = recipe.flip_slices or recipe.flip or recipe.flip_vertical or recipe.transpose
    geometry = recipe.geometry_share and (recipe.rotate_deg or recipe.zoom or recipe.shift)
    density = recipe.gain_jitter or recipe.noise_hu
    if not (exact or geometry or density or recipe.cutout):
        return hu_BSHW, is_reversed_B.to(hu_BSHW.device)
    out = hu_BSHW.to(torch.float32, copy=True)
    if exact:
        _move_(out, recipe, draws)
    if geometry:
        _resample_(out, recipe, draws)
    if density:
        _change_density_(out, recipe, draws, seed)
    if recipe.cutout:
        _blank_(out, recipe, draws, seed)
    return out, is_reversed_B.to(hu_BSHW.device)


def draw_jitter(recipe: Recipe, n_slices: int, seed: int, device: torch.device) -> torch.Tensor | None:
    """Draw how the windows of each slice of a training batch are moved.

    Args:
        recipe: whose ``window_jitter`` j and windows count.
        n_slices: slices of the batch, B.
        seed: seed of this batch, at least 0.
        device: where the result shall lie.

    Returns:
        float32 (B, N, 2): a shift of the centre within [-j, j], in shares of the width, and a factor of the width
        within [1 - j, 1 + j]; None where j is 0.
    """
    if recipe.window_jitter == 0:
        return None
    u_BN2 = torch.rand(n_slices, len(recipe.windows), 2, generator=_generator(seed, _JITTER))
    return (recipe.window_jitter * (2.0 * u_BN2 - 1.0) + torch.tensor([0.0, 1.0])).to(device)


def warp(hu_MSHW: torch.Tensor, degrees_M: torch.Tensor, zoom_M: torch.Tensor, shift_M2: torch.Tensor) -> torch.Tensor:
    """Rotate and scale about the middle of the image, then shift; bilinear, with air outside.

    Args:
        hu_MSHW: float (M, S, H, W) in HU.
        degrees_M: counter-clockwise rotation of the image as it is looked at.
        zoom_M: factor; above 1 enlarges.
        shift_M2: shift down and to the right, in shares of the image's height and width.

    Returns:
        A new tensor (M, S, H, W) in HU.
    """
    height, width = hu_MSHW.shape[-2:]
    radians_M = degrees_M.double() * (math.pi / 180.0)
    cos_M, sin_M = torch.cos(radians_M) / zoom_M, torch.sin(radians_M) / zoom_M
    # where a pixel of the result came from, both from -1 to 1 across the image: a column's part, then a row's
    columns_M2 = torch.stack([cos_M, sin_M * width / height], dim=1)
    rows_M2 = torch.stack([-sin_M * height / width, cos_M], dim=1)
    numbers_M23 = torch.stack([columns_M2, rows_M2, 2.0 * shift_M2.flip(1)], dim=2).to(hu_MSHW.device, hu_MSHW.dtype)
    x_MW = _pixel_centers(width, hu_MSHW) - numbers_M23[:, :1, 2]
    y_MH = _pixel_centers(height, hu_MSHW) - numbers_M23[:, 1:, 2]
    # torch's affine_grid multiplies matrices: TF32 and autocast would round it to a tenth of a pixel, and it is slower
    columns_M1W2 = x_MW[:, None, :, None] * numbers_M23[:, None, None, :, 0]
    rows_MH12 = y_MH[:, :, None, None] * numbers_M23[:, None, None, :, 1]
    # grid_sample fills with 0, so that HU are counted from air meanwhile
    moved = grid_sample(hu_MSHW - AIR_HU, columns_M1W2 + rows_MH12, mode="bilinear", align_corners=False)
    return moved.add_(AIR_HU)


def _pixel_centers(n: int, like: torch.Tensor) -> torch.Tensor:
    return (2.0 * torch.arange(n, device=like.device, dtype=like.dtype) + 1.0) / n - 1.0


def _generator(seed: int, stream: int) -> torch.Generator:
    """Return one of a seed's streams; two streams of one seed have nothing in common."""
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def _decide(seed: int, n: int) -> Draws:
    u_BD = torch.rand(n, len(_DECISIONS), generator=_generator(seed, _DECIDE), dtype=torch.float64)
    return dict(zip(_DECISIONS, u_BD.unbind(1), strict=True))


def _around(u_B: torch.Tensor, middle: float, radius: float) -> torch.Tensor:
    return middle + radius * (2.0 * u_B - 1.0)


def _change_(out: torch.Tensor, rows_M: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change some samples, and leave every bit of the others."""
    if len(rows_M) > 0:
        rows_M = rows_M.to(out.device)
        out[rows_M] = change(out[rows_M])


def _rows(happens_B: torch.Tensor) -> torch.Tensor:
    return happens_B.nonzero().flatten()


def _move_(out: torch.Tensor, recipe: Recipe, draws: Draws) -> None:
    _change_(out, _rows(draws["flip_slices"] < recipe.flip_slices), lambda hu_MSHW: hu_MSHW.flip(1))
    _change_(out, _rows(draws["flip"] < recipe.flip), lambda hu_MSHW: hu_MSHW.flip(-1))
    _change_(out, _rows(draws["flip_vertical"] < recipe.flip_vertical), lambda hu_MSHW: hu_MSHW.flip(-2))
    _change_(out, _rows(draws["transpose"] < recipe.transpose), lambda hu_MSHW: hu_MSHW.transpose(-1, -2))


def _resample_(out: torch.Tensor, recipe: Recipe, draws: Draws) -> None:
    rows_M = _rows(draws["geometry"] < recipe.geometry_share)
    degrees_M = _around(draws["degrees"][rows_M], 0.0, recipe.rotate_deg)
    zoom_M = _around(draws["zoom"][rows_M], 1.0, recipe.zoom)
    shift_2M = torch.stack([draws["shift_rows"][rows_M], draws["shift_columns"][rows_M]])
    shift_M2 = _around(shift_2M.T, 0.0, recipe.shift)
    _change_(out, rows_M, lambda hu_MSHW: warp(hu_MSHW, degrees_M, zoom_M, shift_M2))


def _change_density_(out: torch.Tensor, recipe: Recipe, draws: Draws, seed: int) -> None:
    if recipe.gain_jitter:
        gain_B = _around(draws["gain"], 1.0, recipe.gain_jitter)
        out.mul_(gain_B.to(out.device, out.dtype)[:, None, None, None])
    if recipe.noise_hu:
        out.add_(_noise(out, seed), alpha=recipe.noise_hu)
    out.clamp_(min=AIR_HU)


def _noise(like_BSHW: torch.Tensor, seed: int) -> torch.Tensor:
    """White noise of variance 1, cut for each slice at a place of its own from one field of four times its size.

    A GPU would have to wait for a CPU that draws a number for every pixel of the batch.
    """
    n, n_slices, height, width = like_BSHW.shape
    generator = _generator(seed, _NOISE)
    field = torch.randn(2 * height, 2 * width, generator=generator).to(like_BSHW)
    top = torch.randint(height + 1, (n, n_slices), generator=generator).to(like_BSHW.device)
    left = torch.randint(width + 1, (n, n_slices), generator=generator).to(like_BSHW.device)
    return field.unfold(0, height, 1).unfold(1, width, 1)[top, left]


def _blank_(out: torch.Tensor, recipe: Recipe, draws: Draws, seed: int) -> None:
    """Fill squares with air, their middles anywhere in the image.

    Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017.
    """
    height, width = out.shape[-2:]
    rows_M = _rows(draws["cutout"] < recipe.cutout)
    u_BO3 = torch.rand(len(out), recipe.cutout_holes, 3, generator=_generator(seed, _HOLES), dtype=torch.float64)
    n_holes_M1 = 1 + (draws["n_holes"][rows_M, None] * recipe.cutout_holes).long()
    is_cut_MO = torch.arange(recipe.cutout_holes) < n_holes_M1
    largest_px = max(1, round(recipe.cutout_size * height))
    side_MO = (1 + (u_BO3[rows_M, :, 0] * largest_px).long()) * is_cut_MO
    is_row_MOH = _spans((u_BO3[rows_M, :, 1] * height).long() - side_MO // 2, side_MO, height, out)
    is_column_MOW = _spans((u_BO3[rows_M, :, 2] * width).long() - side_MO // 2, side_MO, width, out)
    # how many squares cover a pixel; all of them at once, and exact in whatever precision
    is_blank_M1HW = (is_row_MOH.mT @ is_column_MOW)[:, None] > 0
    _change_(out, rows_M, lambda hu_MSHW: hu_MSHW.masked_fill(is_blank_M1HW, AIR_HU))


def _spans(start_MO: torch.Tensor, length_MO: torch.Tensor, n: int, like: torch.Tensor) -> torch.Tensor:
    """Return 1 on the pixels of each stretch and 0 elsewhere, (M, O, n) on the device and in the dtype of ``like``."""
    start_MO1, length_MO1 = start_MO.to(like.device)[..., None], length_MO.to(like.device)[..., None]
    place_n = torch.arange(n, device=like.device) - start_MO1
    return ((place_n >= 0) & (place_n < length_MO1)).to(like.dtype)
