"""The scanner of the phantom: where the slices lie, what each one shows in HU, and what is truly in it.

Smooth fields are evaluated on a coarse grid (one node every 3 mm, whatever the matrix) on several planes
within a slice's thickness, brought to full resolution by linear interpolation, and composed there. So partial
volume along z, tilt and rotation come from geometry, and an anatomy does not change with the matrix it is
written in.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ichtune.data.phantom import anatomy
from ichtune.data.phantom.anatomy import FAR_MM, Field, Head, Point, Points, ramp
from ichtune.data.phantom.bleeds import EPIDURAL, SUBDURAL, Bleed, push_of, region_mm, thickness_mm
from ichtune.data.phantom.compose import compose_hu
from ichtune.labels import SUBTYPES

_N_COARSE = 72
_SLICES_AT_ONCE = 4
_COMMON_LENGTHS = ((32, 0.19), (40, 0.14), (36, 0.13), (28, 0.12), (34, 0.10))


@dataclass(frozen=True)
class Scan:
    """Geometry and physics of one series.

    ``table_mm`` are the table positions of the slices from feet to head; all share the in-plane centre.
    ``pose`` is the 3x3 rotation from patient to head coordinates, row by row.
    """

    size_px: int
    fov_mm: float
    tilt_deg: float
    table_mm: tuple[float, ...]
    thickness_mm: tuple[float, ...]
    centre_mm: tuple[float, float]
    origin_z_mm: float
    pose: tuple[float, ...]
    noise_hu: float
    grain: float
    cupping_hu: float
    base_streak_hu: float
    glare_rate: float

    @property
    def pixel_mm(self) -> float:
        """Edge of a pixel as written into the header (mm)."""
        return round(self.fov_mm / self.size_px, 6)

    @property
    def tilt(self) -> tuple[float, float]:
        """Cosine and sine of the gantry tilt, as written into the header."""
        angle = math.radians(self.tilt_deg)
        return round(math.cos(angle), 6), round(math.sin(angle), 6)

    def corner_mm(self, k: int) -> Point:
        """Position of the centre of the first pixel of slice ``k`` in patient coordinates (mm)."""
        c, s = self.tilt
        half = (self.size_px - 1) / 2 * self.pixel_mm
        x = self.centre_mm[0] - half
        y = self.centre_mm[1] - half * c
        z = self.origin_z_mm + self.table_mm[k] + half * s
        return (round(x, 4), round(y, 4), round(z, 4))


@dataclass(frozen=True)
class Rendered:
    """Pixels and truth of a series: HU int16 (N, H, W), blood in mm2 per slice and subtype (N, 5)."""

    hu: NDArray[np.int16]
    area_mm2: NDArray[np.float64]
    outside: NDArray[np.bool_]


def draw_scan(rng: np.random.Generator, size_px: int, difficulty: float) -> Scan:
    """Draw one series' geometry: length, spacing, tilt, pose of the head, and image quality."""

    def number(low: float, high: float) -> float:
        return round(float(rng.uniform(low, high)), 4)

    def normal(sd: float, limit: float = 2.0) -> float:
        return round(sd * float(np.clip(rng.standard_normal(), -limit, limit)), 4)

    tilt = round(number(4, 22) * (1 if rng.random() < 0.8 else -1), 1) if rng.random() < 0.53 else 0.0
    pitch = tilt * number(0.8, 1.1) + normal(3.0)
    table, thickness = _positions(rng, number(-66, -50), number(80, 90))
    noise_hu = (3.0 + 5.0 * number(0, 1) ** 2) * min(2.5, max(0.3, difficulty))
    return Scan(
        size_px=size_px,
        fov_mm=number(222, 250),
        tilt_deg=tilt,
        table_mm=table,
        thickness_mm=thickness,
        centre_mm=(normal(4.0), normal(4.0) + 2.0),
        origin_z_mm=number(-160, 120),
        pose=_pose(normal(4.5), pitch, normal(2.5)),
        noise_hu=round(noise_hu, 4),
        grain=number(0.2, 0.8),
        cupping_hu=number(1, 5) * min(2.0, difficulty),
        base_streak_hu=number(4, 12),
        glare_rate=0.05 * difficulty,
    )


def _positions(rng: np.random.Generator, low: float, high: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    pick = float(rng.random())
    n_slices = int(rng.integers(20, 61))
    for length, share in _COMMON_LENGTHS:
        if pick < share:
            n_slices = length
            break
        pick -= share
    steps = np.ones(n_slices)
    if rng.random() < 0.12:  # thin slices through the base, thick ones above, as in older protocols
        steps[: n_slices // 3] = 0.5
    steps *= (high - low) / float(sum(steps.tolist()))
    table = [low]
    for step in steps[:-1].tolist():
        table.append(table[-1] + step)
    return tuple(round(t, 3) for t in table), tuple(round(t, 3) for t in steps.tolist())


def _pose(roll_deg: float, pitch_deg: float, yaw_deg: float) -> tuple[float, ...]:
    r, p, y = (math.radians(v) for v in (roll_deg, pitch_deg, yaw_deg))
    rz = np.array([[math.cos(r), -math.sin(r), 0], [math.sin(r), math.cos(r), 0], [0, 0, 1]])
    rx = np.array([[1, 0, 0], [0, math.cos(p), -math.sin(p)], [0, math.sin(p), math.cos(p)]])
    ry = np.array([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]])
    return tuple(round(float(v), 6) for v in (rz @ rx @ ry).ravel())


class _Interpolator:
    """Linear interpolation from the coarse grid to the pixels of a box, one axis after the other."""

    def __init__(self, size_px: int, rows: slice = slice(None), columns: slice = slice(None)) -> None:
        at = (np.arange(size_px) + 0.5) * ((_N_COARSE - 1) / size_px)
        low = np.minimum(at.astype(np.int64), _N_COARSE - 2)
        weight = np.round((at - low) * 2**14).astype(np.float32) / np.float32(2**14)
        self.rows, self.columns = rows, columns
        self._top, self._left = low[rows], low[columns]
        self._row_weight, self._column_weight = weight[rows][:, None], weight[columns]

    def __call__(self, coarse: Field) -> Field:
        left = coarse.take(self._left, axis=-1)
        wide = coarse.take(self._left + 1, axis=-1)
        wide -= left
        wide *= self._column_weight
        wide += left
        top = wide.take(self._top, axis=-2)
        out = wide.take(self._top + 1, axis=-2)
        out -= top
        out *= self._row_weight
        out += top
        return out


def _head_box(scalp: Field, size_px: int) -> tuple[slice, slice] | None:
    """Rows and columns of pixels that hold the head, from the scalp's distance (planes, n, n)."""
    near: NDArray[np.bool_] = np.asarray((scalp < 4.0).any(axis=0))
    if not near.any():
        return None
    box = []
    for axis in (1, 0):
        hit = np.flatnonzero(near.any(axis=axis))
        low = max(0, int(hit[0]) - 1) * size_px // (_N_COARSE - 1)
        high = -(-(min(_N_COARSE - 1, int(hit[-1]) + 1) * size_px) // (_N_COARSE - 1))
        box.append(slice(low, min(size_px, high)))
    return box[0], box[1]


def _head_coordinates(scan: Scan, slices: list[int], n_planes: int) -> tuple[Field, Field, Field]:
    """Head coordinates of the coarse nodes of some slices, each float32 (planes of all, n, n), mm."""
    c, s = scan.tilt
    grid = (np.arange(_N_COARSE) / (_N_COARSE - 1) - 0.5) * scan.fov_mm
    offsets = (np.arange(n_planes) + 0.5) / n_planes - 0.5
    depth = np.array([scan.thickness_mm[k] for k in slices])[:, None] * offsets
    table = np.array([scan.table_mm[k] for k in slices])[:, None]
    plane_y, plane_z = (depth * s).ravel(), (table + depth * c).ravel()
    px = (scan.centre_mm[0] + grid)[None, None, :]
    py = (scan.centre_mm[1] + grid * c)[None, :, None] + plane_y[:, None, None]
    pz = (-grid * s)[None, :, None] + plane_z[:, None, None]
    m = scan.pose
    axes = [m[3 * i] * px + (m[3 * i + 1] * py + m[3 * i + 2] * pz) for i in range(3)]
    return axes[0].astype(np.float32), axes[1].astype(np.float32), axes[2].astype(np.float32)


def _scatter(values: Field, where: NDArray[np.int64], shape: tuple[int, ...], fill: float) -> Field:
    out = np.full(shape, fill, np.float32)
    out.reshape(-1)[where] = values
    return out


def _coarse_fields(head: Head, bleeds: tuple[Bleed, ...], p: Points) -> dict[str, Field]:
    """All smooth fields on the coarse grid, (planes, n, n) each; brain fields only where there is brain."""
    shape = p.x.shape
    fields = anatomy.bone_fields(head, p)
    surface = p.vault_mm
    for bleed in bleeds:
        if bleed.subtype in (EPIDURAL, SUBDURAL):
            surface = surface + np.maximum(thickness_mm(bleed, p), 0.0)
    fields["pial"] = np.maximum(surface, fields["base"])  # the brain under what lies on it
    fields.update(x=p.x, y=p.y, z=p.z, bx=p.bx, by=p.by)

    def at(where: NDArray[np.int64]) -> Points:
        picked = (f.reshape(-1)[where] for f in (p.x, p.y, p.z, p.bx, p.by, p.bz, p.r, p.vault_mm))
        return Points(*picked)

    inside = np.flatnonzero(fields["cavity"] < 6.0)
    q = at(inside)
    vent = anatomy.ventricle_mm(head, q)
    for name, values, fill in (
        ("ventricle", vent, FAR_MM),
        ("cistern", anatomy.cistern_mm(head, q), FAR_MM),
        ("sulcus", anatomy.sulcal_noise(head, q), 0.0),
        ("deep_grey", anatomy.deep_grey_mm(q), FAR_MM),
        ("tentorium", anatomy.tentorium_mm(q), FAR_MM),
        ("falx_gate", anatomy.falx_gate_mm(q), FAR_MM),
        ("tissue", anatomy.tissue_hu(head, q, vent), 0.0),
    ):
        fields[name] = _scatter(values, inside, shape, fill)
    for i, bleed in enumerate(bleeds):
        fields[f"bleed{i}"] = _scatter(region_mm(bleed, head, q), inside, shape, FAR_MM)
    under = np.flatnonzero(fields["face"] < 8.0)
    fields["face_hu"] = _scatter(anatomy.face_hu(head, at(under)), under, shape, 300.0)
    return fields


def _noise(rng: np.random.Generator, scan: Scan) -> Field:
    """Correlated noise of one slice (HU): sums of bytes, hence the same on every machine."""
    n = scan.size_px + 2
    raw = np.frombuffer(rng.bytes(4 * n * n), np.uint8).reshape(4, n, n)
    white = (raw.astype(np.int16).sum(axis=0, dtype=np.int16) - 510).astype(np.float32)
    g = np.float32(scan.grain)
    rows = white[1:-1] + (white[:-2] + white[2:]) * g
    both = rows[:, 1:-1] + (rows[:, :-2] + rows[:, 2:]) * g
    return both * np.float32(round(scan.noise_hu / (147.8 * (1.0 + 2.0 * scan.grain**2)), 7))


def _streaks(rng: np.random.Generator, scan: Scan, x: Field, y: Field, z_mm: float) -> Field:
    """Beam hardening between the petrous bones, and now and then a bright patch on one slice alone (HU)."""
    out = np.zeros(x.shape, np.float32)
    draws = [round(float(v), 4) for v in rng.random(16)]
    base = min(1.0, max(0.0, (-14.0 - z_mm) / 22.0))
    if base > 0:
        out -= base * scan.base_streak_hu * np.clip(1.0 - np.abs(y - 16.0) / 9.0, 0.0, 1.0)
        for i in range(4):
            slope = draws[3 * i] * 1.2 - 0.6
            s = (y - 18.0) - slope * (x - (40.0 if i % 2 else -40.0))
            height = (draws[3 * i + 1] - 0.45) * 2.6 * scan.base_streak_hu * base
            out += np.float32(height) * np.clip(1.0 - np.abs(s) / (2.0 + 3.0 * draws[3 * i + 2]), 0.0, 1.0)
    if draws[12] < scan.glare_rate:
        side = 1.0 if draws[13] < 0.5 else -1.0
        where = (side * (25.0 + 35.0 * draws[14]), 90.0 * draws[15] - 45.0, 0.0)
        patch = anatomy.ellipsoid(x, y, x * 0, where, (8.0 + 8 * draws[13], 6.0 + 14.0 * draws[14], 1e3))
        out += np.float32(18.0 + 22.0 * draws[15]) * np.clip(-patch / 12.0, 0.0, 1.0)
    return out


def _add_spots(hu: Field, head: Head, scan: Scan, xyz: tuple[Field, Field, Field], inside: Field) -> None:
    """Draw calcifications and vessels into the planes of a slice, only where they are."""
    x, y, z = xyz
    for spot in head.spots:
        reach = max(spot.radii_mm) + 2.0
        zs = z[:, :: z.shape[1] - 1, :: z.shape[2] - 1]
        if spot.centre[2] < zs.min() - reach or spot.centre[2] > zs.max() + reach:
            continue
        near = (np.abs(x[0] - spot.centre[0]) < reach) & (np.abs(y[0] - spot.centre[1]) < reach)
        rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        if rows.size == 0:
            continue
        box = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        d = anatomy.ellipsoid(x[box], y[box], z[box], spot.centre, spot.radii_mm)
        hu[box] += ramp(d, max(1.2, scan.pixel_mm)) * inside[box] * np.float32(spot.added_hu)


def _headrest(x: Field, y: Field) -> Field:
    """The padded shell under the head in HU, (H, W); fixed to the table."""
    lift = y - 106.0 + 0.008 * x * x
    shell = ramp(np.abs(lift) - 2.2, 2.0)
    foam = ramp(lift, 2.0) * ramp(np.abs(x) - 85.0, 3.0) * np.clip((lift + 14.0) / 2.0, 0.0, 1.0)
    return np.maximum(-1000.0 + 70.0 * foam, -1000.0 + 1090.0 * shell * ramp(np.abs(x) - 95.0, 3.0))


def _scan_slice(
    rng: np.random.Generator,
    head: Head,
    bleeds: tuple[Bleed, ...],
    scan: Scan,
    fields: dict[str, Field],
    zoom: _Interpolator,
) -> tuple[Field, NDArray[np.float64]]:
    """Mean HU of a slice within the box of ``zoom``, without noise, and its area of blood."""
    width = max(1.2, scan.pixel_mm)
    planes, area = compose_hu(head, bleeds, fields, zoom, scan.pixel_mm)
    xyz = (zoom(fields["x"]), zoom(fields["y"]), zoom(fields["z"]))
    cavity = zoom(fields["cavity"])
    inside = ramp(cavity, width)
    _add_spots(planes, head, scan, xyz, inside)
    mean = planes[0].copy()
    for plane in planes[1:]:
        mean += plane
    mean *= np.float32(1.0 / len(planes))
    middle = len(planes) // 2
    z_mm = float(fields["z"][middle, _N_COARSE // 2, _N_COARSE // 2])
    artefact = _streaks(rng, scan, xyz[0][middle], xyz[1][middle], z_mm)
    artefact += np.float32(scan.cupping_hu) / (1.0 + np.maximum(-cavity[middle], 0.0) * 0.25)
    mean += artefact * inside[middle]
    return mean, area


def render_series(rng: np.random.Generator, head: Head, bleeds: tuple[Bleed, ...], scan: Scan) -> Rendered:
    """Scan a head.

    Args:
        rng: generator of the series' noise; consumed slice by slice from feet to head.
        head: the anatomy.
        bleeds: what bleeds (mimics included, they leave no truth).
        scan: geometry and physics.

    Returns:
        HU from feet to head, int16 (N, H, W); area of blood in mm2, float64 (N, 5) in the order of
        ``ichtune.labels.SUBTYPES``; and the mask (H, W) of pixels outside the round field of view.
    """
    n, size = len(scan.table_mm), scan.size_px
    hu = np.empty((n, size, size), np.int16)
    area = np.zeros((n, len(SUBTYPES)))
    grid = ((np.arange(size) + 0.5) / size - 0.5) * scan.fov_mm
    gx, gy = (a.astype(np.float32) for a in np.meshgrid(grid, grid))
    headrest = _headrest(gx, gy)
    outside = gx * gx + gy * gy > np.float32((scan.fov_mm / 2) ** 2)
    pushes = tuple(p for p in map(push_of, bleeds) if p is not None)
    n_planes = 3 if max(scan.thickness_mm) > 3.0 else 2
    for start in range(0, n, _SLICES_AT_ONCE):
        slices = list(range(start, min(n, start + _SLICES_AT_ONCE)))
        x, y, z = _head_coordinates(scan, slices, n_planes)
        fields = _coarse_fields(head, bleeds, anatomy.place(head, x, y, z, pushes))
        for i, k in enumerate(slices):
            part = {f: v[i * n_planes : (i + 1) * n_planes] for f, v in fields.items()}
            mean = headrest.copy()
            if box := _head_box(part["scalp"], size):
                zoom = _Interpolator(size, *box)
                shown, area[k] = _scan_slice(rng, head, bleeds, scan, part, zoom)
                mean[box] = np.maximum(shown, headrest[box])
            mean += _noise(rng, scan)
            hu[k] = np.clip(np.rint(mean), -1024, 3071).astype(np.int16)
    return Rendered(hu, area, outside)
