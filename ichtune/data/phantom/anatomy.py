"""The head of a generated patient: analytic 3-D anatomy, evaluated at points given in millimetres.

Head coordinates: origin in the middle of the brain, x to the patient's left, y to the back, z to the top.
Everything that decides a pixel uses only IEEE-exact operations (+ - * / sqrt, comparisons), never exp, sin or
a sum over an array, so that every machine computes the same bytes. Structures are signed distances in mm,
negative inside.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.floating[Any]]  # float32 throughout; numpy's own types are wider
Point = tuple[float, float, float]

GREY_HU, WHITE_HU, CSF_HU, SCALP_HU, AIR_HU = 37.0, 30.0, 7.0, 20.0, -1000.0
FAR_MM = 60.0
_LATTICE_N = 40
_SULCAL_PITCH_MM = 2.1


@dataclass(frozen=True)
class Spot:
    """A small ellipsoid drawn at full resolution: calcification, vessel or clip."""

    centre: Point
    radii_mm: Point
    added_hu: float


@dataclass(frozen=True)
class Head:
    """The shape of one patient's head; drawn once, shared by the patient's studies.

    ``lattice`` is smooth periodic noise of unit variance, shape (n, n, n), from which the gyri are cut.
    """

    half_width_mm: float
    half_length_mm: float
    half_height_mm: float
    skull_mm: float
    scalp_mm: float
    egg: float
    atrophy: float
    ventricle_mm: float
    leukoaraiosis_hu: float
    brain_hu: float
    warp: tuple[float, ...]
    lattice: Field
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class Push:
    """Mass effect: points near ``centre`` are displaced by up to ``shift_mm``, away from it or along x."""

    centre: Point
    radius_mm: float
    shift_mm: float
    along_x: float = 0.0


@dataclass(frozen=True)
class Points:
    """Positions in one head: as measured (x, y, z), and in the undeformed brain (bx, by, bz)."""

    x: Field
    y: Field
    z: Field
    bx: Field
    by: Field
    bz: Field
    r: Field
    vault_mm: Field


def ramp(d_mm: Field, width_mm: float) -> Field:
    """Partial volume of a structure: 1 inside, 0 outside, linear over ``width_mm`` across its surface."""
    return np.clip(0.5 - d_mm * np.float32(1.0 / width_mm), 0.0, 1.0, dtype=np.float32)


def ellipsoid(x: Field, y: Field, z: Field, centre: Point, radii: Point) -> Field:
    """Approximate signed distance to an ellipsoid (mm)."""
    qx, qy, qz = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1], (z - centre[2]) / radii[2]
    mean = (radii[0] * radii[1] * radii[2]) ** (1 / 3)
    return (np.sqrt(qx * qx + qy * qy + qz * qz) - 1.0) * np.float32(round(mean, 4))


def capsule(x: Field, y: Field, z: Field, a: Point, b: Point, r_mm: float) -> Field:
    """Signed distance to a rod with round ends from ``a`` to ``b`` (mm)."""
    dx, dy, dz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    px, py, pz = x - a[0], y - a[1], z - a[2]
    h = np.clip((px * dx + py * dy + pz * dz) * (1.0 / (dx * dx + dy * dy + dz * dz)), 0.0, 1.0)
    px, py, pz = px - h * dx, py - h * dy, pz - h * dz
    return np.sqrt(px * px + py * py + pz * pz) - r_mm


def _lattice(rng: np.random.Generator) -> Field:
    raw = rng.integers(-(2**15), 2**15, size=(_LATTICE_N,) * 3).astype(np.float64)
    smooth = ndimage.gaussian_filter(raw, 1.5, mode="wrap") / 1542.0
    return (np.round(smooth * 4096.0) / 4096.0).astype(np.float32)


def noise(head: Head, x: Field, y: Field, z: Field, pitch_mm: float) -> Field:
    """Smooth noise of unit variance; features are about ``6 * pitch_mm`` wide."""
    at = np.stack([x, y, z]).astype(np.float64) * (1.0 / pitch_mm)
    out = np.empty(x.shape, np.float64)
    ndimage.map_coordinates(head.lattice, at, output=out, order=1, mode="grid-wrap", prefilter=False)
    return out.astype(np.float32)


def draw_head(rng: np.random.Generator, difficulty: float) -> Head:
    """Draw one patient's anatomy.

    Args:
        rng: the patient's own generator.
        difficulty: scales the number of calcifications that look like small bleeds.
    """

    def about(mean: float, sd: float) -> float:
        return round(mean + sd * float(np.clip(rng.standard_normal(), -2.0, 2.0)), 4)

    atrophy = round(float(rng.beta(1.4, 2.2)), 4)
    return Head(
        half_width_mm=about(66.0, 2.5),
        half_length_mm=about(82.0, 3.0),
        half_height_mm=about(76.0, 2.5),
        skull_mm=about(7.0, 1.0),
        scalp_mm=about(5.5, 1.0),
        egg=about(0.07, 0.03),
        atrophy=atrophy,
        ventricle_mm=about(3.0 * atrophy - 0.2, 0.7),
        leukoaraiosis_hu=round(float(rng.uniform(0.0, 7.0)) * atrophy, 4),
        brain_hu=about(0.0, 1.2),
        warp=tuple(about(0.0, 1.0) for _ in range(9)),
        lattice=_lattice(rng),
        spots=tuple(_draw_spots(rng, difficulty)),
    )


@dataclass(frozen=True)
class _SpotKind:
    """A kind of spot: how likely on each of its sides, where, how large, how dense (HU added)."""

    p: float
    grows: bool  # becomes more frequent with difficulty
    centre: Point
    spread: Point
    radius_mm: tuple[float, float]
    hu: tuple[float, float]
    paired: bool = False


_NEAR: Point = (2.0, 2.0, 3.0)
_SPOT_KINDS = (
    _SpotKind(0.65, False, (0, 24, 8), _NEAR, (1.8, 3.4), (60, 260)),  # pineal
    _SpotKind(0.35, False, (22, 36, 10), _NEAR, (2.0, 5.0), (50, 260), paired=True),  # choroid plexus
    _SpotKind(0.10, True, (21, -2, 4), _NEAR, (2.5, 5.5), (45, 160), paired=True),  # basal ganglia
    _SpotKind(0.05, True, (20, 50, -34), _NEAR, (3.0, 6.0), (45, 130), paired=True),  # dentate nucleus
    _SpotKind(1.00, False, (14, -14, -19), _NEAR, (1.4, 2.2), (8, 26), paired=True),  # middle cerebral artery
    _SpotKind(1.00, False, (0, -5, -28), _NEAR, (1.6, 2.4), (10, 26)),  # basilar artery
    _SpotKind(0.25, True, (0, -5, 45), (2.0, 45.0, 15.0), (1.5, 5.0), (120, 500)),  # falx
    _SpotKind(0.25, True, (0, 2, 20), (45.0, 57.0, 30.0), (1.5, 3.5), (40, 200)),  # anywhere in the brain
    _SpotKind(0.10, True, (0, 2, 20), (45.0, 57.0, 30.0), (1.5, 3.5), (40, 200)),
    _SpotKind(0.04, True, (0, -12, -10), (25.0, 12.0, 10.0), (1.5, 2.5), (1500, 3000)),  # aneurysm clip
)


def _draw_spots(rng: np.random.Generator, difficulty: float) -> list[Spot]:
    """Calcifications and vessels: normal, dense, and the classic imitators of small bleeds."""

    def within(low: float, high: float) -> float:
        return round(float(rng.uniform(low, high)), 4)

    spots: list[Spot] = []
    for kind in _SPOT_KINDS:
        for side in (-1, 1) if kind.paired else (1,):
            if float(rng.random()) >= kind.p * (difficulty if kind.grows else 1.0):
                continue
            (x, y, z), (dx, dy, dz) = kind.centre, kind.spread
            centre = (x * side + within(-dx, dx), y + within(-dy, dy), z + within(-dz, dz))
            radii = (within(*kind.radius_mm), within(*kind.radius_mm), within(*kind.radius_mm))
            spots.append(Spot(centre, radii, within(*kind.hu)))
    return spots


def place(head: Head, x: Field, y: Field, z: Field, pushes: tuple[Push, ...]) -> Points:
    """Locate points in the vault and in the undeformed brain (low-order warp, then mass effect)."""
    w = head.warp
    u, v, t = x / 70.0, y / 85.0, z / 80.0
    bx = x + w[0] * v * t * 2.0 + w[1] * (v * v - 0.3) * 2.0 + w[2] * t
    by = y + w[3] * u * t * 2.0 + w[4] * (u * u - 0.3) * 2.0 + w[5] * t
    bz = z + w[6] * u * v * 2.0 + w[7] * u * 2.0 + w[8] * v * 2.0
    a = head.half_width_mm * (1.0 + head.egg * np.clip(by / 80.0, -1.0, 1.0))
    c = np.where(bz > 0, np.float32(head.half_height_mm), np.float32(head.half_height_mm * 1.65))
    qx, qy, qz = bx / a, by / head.half_length_mm, bz / c
    flat = np.where(bz > 0, np.float32(0.5), np.float32(0.0))  # the crown is flatter than an ellipsoid
    qz2 = qz * qz
    r = np.sqrt(qx * qx + qy * qy + qz2 * (1.0 - flat + flat * qz2)) + np.float32(1e-3)
    gx, gy, gz = qx / a, qy / head.half_length_mm, qz * (1.0 - flat + 2.0 * flat * qz2) / c
    vault = r * (r - 1.0) / (np.sqrt(gx * gx + gy * gy + gz * gz) + np.float32(1e-4))
    for push in pushes:
        dx, dy, dz = x - push.centre[0], y - push.centre[1], z - push.centre[2]
        rho2 = (dx * dx + dy * dy + dz * dz) * (1.0 / push.radius_mm**2)
        fall = push.shift_mm / (1.0 + rho2 * 0.5)
        if push.along_x:
            bx = bx - fall * push.along_x
        else:
            fall = fall / (push.radius_mm * np.sqrt(rho2 + 0.3))
            bx, by, bz = bx - fall * dx, by - fall * dy, bz - fall * dz
    return Points(x, y, z, bx, by, bz, r, vault)


def base_height(x: Field, y: Field) -> Field:
    """Height of the skull base under the brain (mm): three fossae, sphenoid wing, petrous ridges, sella."""
    ax = np.abs(x)
    anterior = np.clip((-14.0 - 0.42 * ax - y) / 9.0 + 0.5, 0.0, 1.0)
    ridge_y = 6.0 + 0.5 * ax
    posterior = np.clip((y - ridge_y) / 12.0 + 0.5, 0.0, 1.0)
    ridge = np.clip(1.0 - np.abs(y - ridge_y) / 10.0, 0.0, 1.0) * np.clip((ax - 8.0) / 6.0, 0.0, 1.0)
    sella = np.clip((13.0 - ax) / 5.0, 0.0, 1.0) * np.clip((9.0 - y) / 6.0, 0.0, 1.0)
    u, v, w = (ax - 30.0) / 20.0, (y + 55.0) / 24.0, (ax - 38.0) / 22.0
    roof = np.maximum(1.0 - u * u * 0.8 - v * v * 0.5, -0.6) * 11.0 * anterior
    bowl = (w * w * 7.0 - 3.0) * (1.0 - anterior) * (1.0 - posterior)
    p, q = x / 46.0, (y - 50.0) / 34.0
    floor = -37.0 + anterior * 20.0 + roof + bowl + posterior * (12.0 * (p * p + q * q) - 46.0)
    floor = floor + ridge * (15.0 + posterior * 20.0)
    return np.maximum(floor, sella * (22.0) - 44.0 + anterior * 10.0)


def bone_fields(head: Head, p: Points) -> dict[str, Field]:
    """Skull, scalp and what lies under the skull base, on the coarse grid (mm and HU)."""
    under = (base_height(p.bx, p.by) - p.bz) * np.float32(0.75)
    cavity = np.maximum(p.vault_mm, under)
    frontal = np.clip((-p.by - 50.0) / 30.0, 0.0, 1.0) + np.clip((p.by - 60.0) / 25.0, 0.0, 1.0)
    skull = p.vault_mm - head.skull_mm * (0.8 + 0.35 * frontal)
    low = np.clip((12.0 - p.bz) / 25.0, 0.0, 1.0)
    temporal = low * np.clip(1.2 - np.abs(p.by + 8.0) / 38.0, 0.0, 1.0)
    neck = np.clip((-25.0 - p.bz) / 30.0, 0.0, 1.0) * np.clip((p.by - 20.0) / 40.0, 0.0, 1.0)
    scalp = skull - head.scalp_mm - 6.0 * temporal - 14.0 * neck
    plate = 6.0 - 3.5 * np.clip((-22.0 - p.by) / 10.0, 0.0, 1.0)
    face = np.maximum(p.vault_mm + 1.0, plate - under)
    return {
        "base": under,
        "cavity": cavity,
        "skull": skull,
        "scalp": scalp,
        "face": face,
        "muscle": 0.5 - temporal - neck,
    }


def face_hu(head: Head, p: Points) -> Field:
    """Orbits, sinuses, mastoid cells, muscle and spongy bone under the skull base (HU, coarse grid)."""
    ax, y, z = np.abs(p.bx), p.by, p.bz
    grain = noise(head, p.bx, y, z, 1.3)
    front = np.clip((-18.0 - y) / 10.0, 0.0, 1.0)
    hu = 55.0 + (320.0 * np.clip(grain, -0.2, 1.4)) * (1.0 - 0.8 * front)
    muscle = ramp(ellipsoid(ax, y, z, (52, -10, -58), (26, 34, 34)), 6.0)
    hu = hu + (58.0 - hu) * muscle
    neck = np.clip((y - 52.0) / 8.0, 0.0, 1.0)
    hu = hu + (55.0 - hu) * neck
    mastoid = ramp(ellipsoid(ax, y, z, (50, 30, -46), (16, 20, 18)), 4.0)
    hu = hu + (np.where(grain > 0.0, np.float32(900.0), np.float32(-650.0)) - hu) * mastoid
    air = np.minimum(ellipsoid(ax, y, z, (0, -52, -34), (13, 26, 22)), ellipsoid(ax, y, z, (4, -14, -44), (11, 13, 9)))
    septum = np.clip(np.abs(grain) * 4.0, 0.0, 1.0)
    hu = hu + (-900.0 * septum + 150.0 * (1.0 - septum) - hu) * ramp(air, 4.0)
    frontal = ellipsoid(ax, y, z, (6, -74, -14), (13, 7, 12))
    hu = hu + (-920.0 - hu) * ramp(frontal, 3.0)
    wall = ellipsoid(ax, y, z, (33, -60, -34), (21, 30, 25))
    hu = hu + (700.0 - hu) * ramp(np.abs(wall) - 1.8, 3.0)
    hu = hu + (-85.0 - hu) * ramp(wall + 1.8, 3.0)
    globe = ellipsoid(ax, y, z, (34, -74, -35), (12.5, 12.5, 12.5))
    hu = hu + (12.0 - hu) * ramp(globe, 3.0)
    return hu.astype(np.float32)


def ventricle_mm(head: Head, p: Points) -> Field:
    """Signed distance to the ventricles: lateral with their horns, third and fourth."""
    x, y, z, g = np.abs(p.bx), p.by, p.bz, head.ventricle_mm
    d = capsule(x, y, z, (9 + g, -33, 6), (11 + g, -6, 21), 3.6 + g)
    d = np.minimum(d, capsule(x, y, z, (11 + g, -6, 21), (17 + g, 24, 22), 4.4 + g))
    d = np.minimum(d, capsule(x, y, z, (17 + g, 24, 22), (25, 38, 8), 5.6 + g))
    d = np.minimum(d, capsule(x, y, z, (25, 38, 8), (24, 60, 4), 2.8 + g))
    d = np.minimum(d, capsule(x, y, z, (26, 36, 2), (33, 6, -18), 1.8 + 0.8 * g))
    third = ellipsoid(p.bx, y, z, (0, 0, 2), (2.6 + 0.8 * g, 17, 12))
    fourth = ellipsoid(p.bx, y, z, (0, 31, -40), (7 + 0.6 * g, 5.5, 11))
    return np.minimum(d, np.minimum(third, fourth))


def cistern_mm(head: Head, p: Points) -> Field:
    """Signed distance to the basal cisterns, the Sylvian fissures and the insular cisterns."""
    ax, y, z, wide = np.abs(p.bx), p.by, p.bz, 1.2 * head.atrophy
    stem = ellipsoid(p.bx, y, z, (0, 12, -38), (16, 14, 46))
    ring = np.maximum(np.abs(stem - 1.2) - 1.0 - wide, z + 3.0)
    ring = np.maximum(ring, np.minimum(y - 3.0, -20.0 - z))
    star = ellipsoid(p.bx, y, z, (0, -10, -19), (13 + wide, 10, 6.5))
    quad = ellipsoid(p.bx, y, z, (0, 29, 0), (11 + wide, 4.5 + wide, 7))
    magna = ellipsoid(p.bx, y, z, (0, 60, -66), (14, 8, 12))
    flat_z = z * 0.3
    sylvian = capsule(ax, y, flat_z, (37, -14, -1), (62, -4, 1), 1.6 + wide)
    insula = capsule(ax, y, flat_z, (37, -20, -1), (40, 10, 2), 1.2 + wide)
    stalk = capsule(ax, y, z, (10, -14, -19), (38, -18, -12), 1.6 + wide)
    d = np.minimum(np.minimum(ring, star), np.minimum(quad, magna))
    return np.minimum(d, np.minimum(stalk, np.minimum(sylvian, insula)))


def sulcal_noise(head: Head, p: Points) -> Field:
    """Signed noise whose zero set is the sulci (mm); radial sheets, as it varies mostly with direction."""
    scale = (0.6 + 0.4 / p.r) * 1.0
    bend = np.where(p.bz < -20.0, np.float32(0.8), np.float32(1.0))
    g = noise(head, p.bx * scale, p.by * scale * bend, p.bz * scale, _SULCAL_PITCH_MM)
    return g * np.float32(2.6)


def deep_grey_mm(p: Points) -> Field:
    """Signed distance to thalamus, caudate head and lentiform nucleus."""
    ax, y, z = np.abs(p.bx), p.by, p.bz
    d = ellipsoid(ax, y, z, (12, 9, 6), (8, 14, 9))
    d = np.minimum(d, ellipsoid(ax, y, z, (14, -22, 9), (5, 10, 11)))
    return np.minimum(d, ellipsoid(ax, y, z, (27, -5, 3), (7, 18, 10)))


def tentorium_mm(p: Points) -> Field:
    """Signed height above the tentorium (mm), far away in front of the incisura."""
    ax = np.abs(p.bx)
    height = 2.0 - 0.42 * ax - 0.30 * np.maximum(p.by - 34.0, 0.0)
    return (p.bz - height) * np.float32(0.85)


def falx_gate_mm(p: Points) -> Field:
    """Negative where the falx hangs: above the corpus callosum, in front and behind (mm)."""
    arch = ellipsoid(p.bx, p.by, p.bz, (0, 2, 4), (400, 46, 36))
    return np.maximum(-arch, -14.0 - p.bz - 0.25 * p.by)


def tissue_hu(head: Head, p: Points, vent_mm: Field) -> Field:
    """Slow changes of white matter (HU): age changes by the ventricles and a little texture."""
    near = np.clip(1.0 - vent_mm / 16.0, 0.0, 1.0)
    texture = noise(head, p.by, p.bz, p.bx, 3.5)
    return head.brain_hu + texture * np.float32(1.3) - near * near * np.float32(head.leukoaraiosis_hu)
