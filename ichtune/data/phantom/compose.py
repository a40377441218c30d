"""Compose the HU of one slice from smooth fields, from outside to inside: air, scalp, skull, brain, blood."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ichtune.data.phantom.anatomy import AIR_HU, CSF_HU, GREY_HU, WHITE_HU, Field, Head, ramp
from ichtune.data.phantom.bleeds import (
    EPIDURAL,
    INTRAPARENCHYMAL,
    INTRAVENTRICULAR,
    SUBARACHNOID,
    SUBDURAL,
    Bleed,
)
from ichtune.labels import SUBTYPES

Zoom = Callable[[Field], Field]
_OEDEMA_HU, _DURA_HU, _SINUS_HU = 20.0, 50.0, 54.0


def _mix(hu: Field, share: Field, other: Field | float) -> None:
    """Replace ``share`` of each voxel's HU by ``other``, in place."""
    hu += (other - hu) * share


class _Slice:
    """The fields of one slice at full resolution, interpolated when first asked for; absent ones are None."""

    def __init__(self, coarse: dict[str, Field], zoom: Zoom) -> None:
        self._coarse, self._zoom = coarse, zoom
        self._fine: dict[str, Field] = {}

    def __getitem__(self, name: str) -> Field:
        if name not in self._fine:
            self._fine[name] = self._zoom(self._coarse[name])
        return self._fine[name]

    def reaches(self, name: str, below_mm: float = 3.0) -> bool:
        """Whether a signed distance comes under a bound anywhere in the slice."""
        return bool((self._coarse[name] < below_mm).any())


def _skull_and_scalp(hu: Field, f: _Slice, width: float) -> None:
    scalp_hu = np.clip(10.0 - 90.0 * f["muscle"], -60.0, 55.0)
    _mix(hu, ramp(f["scalp"], width), scalp_hu)
    between = f["cavity"] - f["skull"]
    q = (f["cavity"] + f["skull"]) / np.maximum(between, 1.0)
    _mix(hu, ramp(f["skull"], width), 760.0 + 560.0 * np.minimum(q * q, 1.0))
    if f.reaches("face"):
        _mix(hu, ramp(f["face"], width), f["face_hu"])


def _fluid(f: _Slice, head: Head, width: float) -> tuple[Field, Field]:
    """Share of subarachnoid fluid and of ventricle in each voxel."""
    depth = -f["pial"]
    rim = ramp(depth - (0.3 + 2.2 * head.atrophy), width)
    sulcal = ramp(np.abs(f["sulcus"]) - (0.35 + 1.35 * head.atrophy) * (1.0 - depth / 22.0), width)
    fluid = np.maximum(rim, sulcal * np.clip((20.0 - depth) / 8.0, 0.0, 1.0))
    if f.reaches("falx_gate"):
        cleft = ramp(np.abs(f["bx"]) - (0.9 + 1.2 * head.atrophy), width) * np.clip((26.0 - depth) / 8.0, 0.0, 1.0)
        fluid = np.maximum(fluid, cleft * ramp(f["falx_gate"], 4.0))
    if f.reaches("cistern"):
        fluid = np.maximum(fluid, ramp(f["cistern"], width))
    ventricle = ramp(f["ventricle"], width) if f.reaches("ventricle") else np.zeros_like(fluid)
    return fluid, ventricle


def _brain(f: _Slice) -> Field:
    depth = -f["pial"]
    ribbon = np.minimum(depth - 4.0, np.abs(f["sulcus"]) - 3.2 + np.clip((depth - 14.0) / 2.0, 0.0, 9.0))
    grey = ramp(ribbon, 2.4)
    if f.reaches("deep_grey"):
        grey = np.maximum(grey, ramp(f["deep_grey"], 4.0))
    return WHITE_HU + (GREY_HU - WHITE_HU) * grey + f["tissue"]


def _dura(hu: Field, f: _Slice, width: float) -> None:
    """Falx, tentorium and the venous sinuses along them: slightly dense, as normal."""
    depth = -f["pial"]
    if f.reaches("falx_gate"):
        gate = ramp(f["falx_gate"], 4.0)
        _mix(hu, ramp(np.abs(f["bx"]) - 0.7, width) * gate, _DURA_HU)
        _mix(hu, ramp(np.maximum(np.abs(f["bx"]) - 3.5, depth - 5.0), width) * gate, _SINUS_HU)
    if f.reaches("tentorium", 5.0):
        x, y = f["bx"] / 22.0, (f["by"] - 10.0) / 26.0
        behind = np.clip((np.sqrt(x * x + y * y) - 1.0) * 6.0, 0.0, 1.0) * np.clip((f["by"] - 8.0) / 6.0, 0.0, 1.0)
        sheet = np.abs(f["tentorium"])
        _mix(hu, ramp(sheet - 0.6, width) * behind, _DURA_HU)
        groove = np.clip((f["by"] - 26.0) / 8.0, 0.0, 1.0)
        _mix(hu, ramp(np.maximum(sheet - 4.0, depth - 5.0), width) * groove, _SINUS_HU)


def _blood_hu(bleed: Bleed, f: _Slice) -> Field | float:
    if bleed.low_hu == bleed.hu:
        return bleed.hu
    lower = np.clip(0.5 + (f["by"] - bleed.level_y_mm) / 8.0, 0.0, 1.0)
    return bleed.low_hu + (bleed.hu - bleed.low_hu) * lower


def compose_hu(
    head: Head, bleeds: tuple[Bleed, ...], coarse: dict[str, Field], zoom: Zoom, pixel_mm: float
) -> tuple[Field, NDArray[np.float64]]:
    """Compose the planes of one slice.

    Args:
        head: the anatomy.
        bleeds: what bleeds; ``coarse["bleed<i>"]`` is the region of the i-th.
        coarse: fields on the coarse grid, (planes, n, n) each.
        zoom: brings a coarse field to (planes, H, W).
        pixel_mm: edge of a pixel, for the area and the width of edges.

    Returns:
        HU of the planes, float32 (planes, H, W), and the area of blood per subtype, mm2, float64 (5,).
    """
    f = _Slice(coarse, zoom)
    width = max(1.2, pixel_mm)
    hu = np.full(f["scalp"].shape, AIR_HU, np.float32)
    area = np.zeros(len(SUBTYPES))
    _skull_and_scalp(hu, f, width)
    if not f.reaches("cavity", 1.0):
        return hu, area
    cavity = ramp(f["cavity"], width)
    fluid, ventricle = _fluid(f, head, width)
    near = [(i, b) for i, b in enumerate(bleeds) if f.reaches(f"bleed{i}", 9.0)]
    seen = [_Seen(b, i, _share(b, f, i, width, fluid, ventricle)) for i, b in near]
    brain = _brain(f)
    wet = _fill_fluid(brain, seen, fluid, ventricle)
    _dura(brain, f, width)
    _add_solid_blood(brain, seen, f, wet)
    _mix(hu, cavity, brain)
    for s in seen:
        if not s.bleed.mimic:
            area[SUBTYPES.index(s.bleed.subtype)] += _area_mm2(s.share * cavity, pixel_mm)
    return hu, area


@dataclass(frozen=True)
class _Seen:
    """A bleed that reaches into the slice, and its share of each voxel."""

    bleed: Bleed
    index: int
    share: Field


def _share(bleed: Bleed, f: _Slice, index: int, width: float, fluid: Field, ventricle: Field) -> Field:
    """Share of each voxel that a bleed fills; blood in the subarachnoid space also widens the sulci."""
    region = ramp(f[f"bleed{index}"], 4.0 if bleed.subtype == SUBARACHNOID else width)
    if bleed.subtype == SUBARACHNOID:
        return region * np.minimum(fluid * 2.0, 1.0) * (1.0 - ventricle)
    return region * ventricle if bleed.subtype == INTRAVENTRICULAR else region


def _fill_fluid(brain: Field, seen: list[_Seen], fluid: Field, ventricle: Field) -> Field:
    """Put fluid, and the blood in it, into the brain; returns the share of both in each voxel."""
    inner = [s for s in seen if s.bleed.subtype in (INTRAVENTRICULAR, SUBARACHNOID)]
    wet = np.maximum(fluid, ventricle)
    fluid_hu = np.full(wet.shape, CSF_HU, np.float32)
    for s in inner:
        wet = np.maximum(wet, s.share)
        _mix(fluid_hu, np.minimum(s.share / np.maximum(np.maximum(fluid, ventricle), 0.05), 1.0), s.bleed.hu)
    _mix(brain, wet, fluid_hu)
    return wet


def _add_solid_blood(brain: Field, seen: list[_Seen], f: _Slice, wet: Field) -> None:
    """Replace brain by blood with its rim of oedema, then lay extra-axial blood over it."""
    for subtypes in ((INTRAPARENCHYMAL,), (EPIDURAL, SUBDURAL)):
        for s in seen:
            if s.bleed.subtype in subtypes:
                if s.bleed.oedema_mm:
                    rim = ramp(f[f"bleed{s.index}"] - s.bleed.oedema_mm, 4.0) * (1.0 - wet)
                    _mix(brain, rim * 0.8, _OEDEMA_HU)
                _mix(brain, s.share, _blood_hu(s.bleed, f))


def _area_mm2(share: Field, pixel_mm: float) -> float:
    """Area of what fills ``share`` of the voxels; summed as integers, so the order does not matter."""
    units = int((np.maximum(share - 0.15, 0.0) * 1024.0).astype(np.int64).sum())
    return units / 1024.0 / share.shape[0] * pixel_mm * pixel_mm
