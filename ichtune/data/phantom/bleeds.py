"""Bleeds of a generated patient: where they are, how they look, and what they push aside.

A bleed is a region in head coordinates (mm). Extra-axial bleeds (epidural, subdural) lie between skull and
brain; subarachnoid and intraventricular blood fills spaces that hold fluid; intraparenchymal blood replaces
brain.
"""

from dataclasses import dataclass

import numpy as np

from ichtune.data.phantom.anatomy import FAR_MM, Field, Head, Point, Points, Push, ellipsoid, noise
from ichtune.labels import SUBTYPES

EPIDURAL, INTRAPARENCHYMAL, INTRAVENTRICULAR, SUBARACHNOID, SUBDURAL = SUBTYPES

# A slice is positive from this much blood on (mm2), whatever its matrix.
MIN_AREA_MM2 = {
    EPIDURAL: 50.0,
    INTRAPARENCHYMAL: 40.0,
    INTRAVENTRICULAR: 32.0,
    SUBARACHNOID: 45.0,
    SUBDURAL: 60.0,
}

_IPH_SITES: tuple[tuple[Point, float, float], ...] = (
    ((26, -4, 5), 16.0, 0.34),
    ((14, 10, 6), 10.0, 0.18),
    ((34, -42, 24), 17.0, 0.13),
    ((36, 28, 32), 17.0, 0.11),
    ((46, 2, -16), 13.0, 0.09),
    ((28, 56, 14), 13.0, 0.06),
    ((22, 52, -34), 13.0, 0.07),
    ((0, 12, -34), 7.0, 0.02),
)


@dataclass(frozen=True)
class Bleed:
    """One bleed.

    ``centre`` is a point in head coordinates, for extra-axial bleeds a direction on the unit sphere of the
    vault; ``extent_mm`` holds radii (x, y, z), for extra-axial bleeds (spread along the skull, up and down,
    thickness). ``low_hu`` is the density of the upper, older part in front of ``level_y_mm`` (isodense,
    mixed, layered). A ``mimic`` looks like one and is none: dural plaque, thick bone, calcified mass,
    infarct.
    """

    subtype: str
    centre: Point
    extent_mm: Point
    hu: float
    low_hu: float
    level_y_mm: float = -FAR_MM * 10
    rough_mm: float = 0.0
    oedema_mm: float = 0.0
    shift_mm: float = 0.0
    mimic: bool = False


def thickness_mm(bleed: Bleed, p: Points) -> Field:
    """Thickness of an extra-axial bleed under the skull at each point's direction (mm, 0 or less outside).

    An epidural bleed is a lens (steep parabola), a subdural one a crescent (plateau that runs out slowly).
    """
    u = [q / (p.r * half) for q, half in ((p.bx, 66.0), (p.by, 82.0), (p.bz, 76.0))]
    dx, dy, dz = (a - b for a, b in zip(u, bleed.centre, strict=True))
    spread, height, thick = bleed.extent_mm
    rho2 = (dx * dx + dy * dy) * (75.0 / spread) ** 2 + dz * dz * (75.0 / height) ** 2
    if bleed.subtype == EPIDURAL:
        return (1.0 - rho2) * np.float32(thick)
    side = 1.0 if bleed.centre[0] > 0 else -1.0
    from_falx = np.clip(p.bx * side / 8.0, 0.0, 1.0)
    return np.minimum((1.0 - rho2) * 1.8, 1.0) * from_falx * np.float32(thick)


def region_mm(bleed: Bleed, head: Head, p: Points) -> Field:
    """Signed distance to the region of a bleed (mm, negative inside), in the coarse grid."""
    if bleed.subtype in (EPIDURAL, SUBDURAL):
        return -p.vault_mm - thickness_mm(bleed, p)
    d = ellipsoid(p.x, p.y, p.z, bleed.centre, bleed.extent_mm)
    if bleed.rough_mm:
        d = d + noise(head, p.x, p.z, p.y, 3.0) * np.float32(bleed.rough_mm)
    if bleed.subtype == INTRAVENTRICULAR:
        return np.maximum(d, bleed.level_y_mm - p.y)
    return d


def push_of(bleed: Bleed) -> Push | None:
    """The mass effect of a bleed, None for those that have none."""
    if bleed.subtype == INTRAPARENCHYMAL:
        radius = round(sum(bleed.extent_mm) / 3 + bleed.oedema_mm, 4)
        return Push(bleed.centre, radius, bleed.shift_mm)
    if bleed.subtype in (EPIDURAL, SUBDURAL) and bleed.shift_mm:
        side = 1.0 if bleed.centre[0] > 0 else -1.0
        at = (bleed.centre[0] * 45, bleed.centre[1] * 45, bleed.centre[2] * 45)
        return Push(at, 45.0, bleed.shift_mm, along_x=-side)
    return None


class _Draw:
    """Rounded draws, so that the last bit of a library function decides nothing."""

    def __init__(self, rng: np.random.Generator, difficulty: float) -> None:
        self.rng = rng
        self.contrast = difficulty**-0.5

    def number(self, low: float, high: float) -> float:
        return round(float(self.rng.uniform(low, high)), 4)

    def chance(self, p: float) -> bool:
        return float(self.rng.random()) < p

    def blood_hu(self, low: float, high: float) -> float:
        return round(34.0 + (self.number(low, high) - 34.0) * self.contrast, 4)

    def side(self) -> float:
        return 1.0 if self.chance(0.5) else -1.0

    def scale(self) -> float:
        """Size of a bleed: many small ones, few large ones."""
        return self.number(0.72, 1.0) if self.chance(0.5) else self.number(0.9, 1.45)


def _unit(x: float, y: float, z: float) -> Point:
    n = (x * x + y * y + z * z) ** 0.5
    return (round(x / n, 5), round(y / n, 5), round(z / n, 5))


def _epidural(draw: _Draw) -> list[Bleed]:
    centre = _unit(draw.side(), draw.number(-0.7, 0.7), draw.number(-0.05, 0.55))
    s = draw.scale()
    extent = (round(27 * s**0.5, 4), round(23 * s**0.5, 4), round(19 * s, 4))
    hu = draw.blood_hu(60, 78)
    shift = round(5.0 * s * draw.number(0.3, 1.0), 4)
    return [Bleed(EPIDURAL, centre, extent, hu, round(hu - draw.number(0, 18), 4), -20.0, shift_mm=shift)]


def _subdural(draw: _Draw) -> list[Bleed]:
    side = draw.side()
    bleeds = []
    for at in (side, -side) if draw.chance(0.15) else (side,):
        centre = _unit(at, draw.number(-0.6, 0.5), draw.number(0.0, 0.7))
        s = draw.scale()
        extent = (draw.number(46, 74), draw.number(19, 33), round(11.0 * s, 4))
        kind = draw.number(0, 1)
        if kind < 0.74:
            hu = draw.blood_hu(58, 76)
            low, level = hu, -1000.0
        elif kind < 0.80:
            hu = draw.number(38, 47)
            low, level = hu, -1000.0
        else:
            hu = draw.blood_hu(58, 76)
            low, level = draw.number(18, 36), draw.number(-40, 15)
        shift = round(6.0 * s * draw.number(0.1, 1.0), 4)
        bleeds.append(Bleed(SUBDURAL, centre, extent, hu, low, level, shift_mm=shift))
    return bleeds


def _intraparenchymal(draw: _Draw, deep: bool) -> list[Bleed]:
    weights = np.array([p * (4.0 if deep and i < 2 else 1.0) for i, (_, _, p) in enumerate(_IPH_SITES)])
    pick = int(np.searchsorted(np.cumsum(weights), draw.number(0, 1) * float(weights.sum()), side="right"))
    (x, y, z), radius, _ = _IPH_SITES[min(pick, len(_IPH_SITES) - 1)]
    s, side = draw.scale(), draw.side()
    centre = (
        round(x * side + draw.number(-5, 5), 4),
        round(y + draw.number(-7, 7), 4),
        round(z + draw.number(-7, 7), 4),
    )
    rx, ry, rz = (round(radius * s * draw.number(*span), 4) for span in ((0.75, 1.2), (0.8, 1.3), (0.6, 1.0)))
    return [
        Bleed(
            INTRAPARENCHYMAL,
            centre,
            (rx, ry, rz),
            hu := draw.blood_hu(58, 80),
            round(hu - draw.number(0, 12), 4) if draw.chance(0.3) else hu,
            level_y_mm=centre[1] if draw.chance(0.3) else -1000.0,
            rough_mm=round(draw.number(0.1, 0.28) * radius * s, 4),
            oedema_mm=draw.number(1.5, 7.0),
            shift_mm=round(draw.number(0.2, 0.6) * radius * s, 4),
        )
    ]


def _intraventricular(draw: _Draw) -> list[Bleed]:
    hu = draw.blood_hu(60, 84)
    kind = draw.number(0, 1)
    if kind < 0.5:
        level = draw.number(26, 50)
        reach: Point = (70.0, 90.0, round(draw.number(14, 30), 4))
        side = draw.side() * draw.number(0, 60)
        return [Bleed(INTRAVENTRICULAR, (side, 40, 8), reach, hu, hu, level)]
    if kind < 0.8:
        side = draw.side()
        centre = (round(12 * side, 4), draw.number(-20, 20), draw.number(6, 20))
        return [Bleed(INTRAVENTRICULAR, centre, (20.0, draw.number(20, 50), draw.number(10, 20)), hu, hu)]
    return [Bleed(INTRAVENTRICULAR, (0, 10, -2), (45.0, 60.0, draw.number(22, 40)), hu, hu)]


def _subarachnoid(draw: _Draw) -> list[Bleed]:
    hu = draw.blood_hu(64, 88)
    kind, s = draw.number(0, 1), draw.scale()
    if kind < 0.5:
        extent = (round(48 * s, 4), round(42 * s, 4), round(20 * s, 4))
        return [Bleed(SUBARACHNOID, (draw.number(-15, 15), draw.number(-15, 0), -14), extent, hu, hu)]
    bleeds = []
    for _ in range(1 if draw.chance(0.6) else 2):
        side = draw.side()
        if kind < 0.7:
            centre = (round(46 * side, 4), draw.number(-16, 6), draw.number(-6, 10))
        else:
            centre = (round(side * draw.number(15, 52), 4), draw.number(-45, 45), draw.number(22, 58))
        extent = (draw.number(20, 34), round(26 * s, 4), round(20 * s, 4))
        bleeds.append(Bleed(SUBARACHNOID, centre, extent, hu, hu))
    return bleeds


def draw_bleeds(rng: np.random.Generator, subtypes: frozenset[str], difficulty: float) -> tuple[Bleed, ...]:
    """Draw the bleeds of one series.

    Args:
        rng: the series' own generator.
        subtypes: which subtypes the series shall show.
        difficulty: takes contrast from the blood.

    Returns:
        The bleeds, in the order of ``ichtune.labels.SUBTYPES``.
    """
    draw = _Draw(rng, difficulty)
    bleeds: list[Bleed] = []
    if EPIDURAL in subtypes:
        bleeds += _epidural(draw)
    if INTRAPARENCHYMAL in subtypes:
        bleeds += _intraparenchymal(draw, deep=INTRAVENTRICULAR in subtypes)
        if draw.chance(0.15):
            bleeds += _intraparenchymal(draw, deep=False)
    if INTRAVENTRICULAR in subtypes:
        bleeds += _intraventricular(draw)
    if SUBARACHNOID in subtypes:
        bleeds += _subarachnoid(draw)
    if SUBDURAL in subtypes:
        bleeds += _subdural(draw)
    return tuple(bleeds)


def draw_mimics(rng: np.random.Generator, difficulty: float) -> tuple[Bleed, ...]:
    """Draw lesions that one window alone takes for blood, independent of what bleeds.

    Thick inner tables, dural plaques and calcified masses are denser than blood (all white in the brain
    window), infarcts and hygromas are darker than brain.
    """
    draw = _Draw(rng, 1.0)
    found: list[Bleed] = []
    if draw.chance(0.07 * difficulty):
        for bleed in _subdural(draw)[:1]:
            extent = (draw.number(25, 70), draw.number(20, 40), draw.number(3, 9))
            hu = draw.number(105, 260)
            found.append(Bleed(SUBDURAL, bleed.centre, extent, hu, hu, mimic=True))
    if draw.chance(0.08 * difficulty):
        mass = _intraparenchymal(draw, deep=False)[0]
        hu, s = draw.number(100, 220), draw.number(0.4, 0.8)
        extent = (
            round(mass.extent_mm[0] * s, 4),
            round(mass.extent_mm[1] * s, 4),
            round(mass.extent_mm[2] * s, 4),
        )
        found.append(Bleed(INTRAPARENCHYMAL, mass.centre, extent, hu, hu, rough_mm=mass.rough_mm, mimic=True))
    if draw.chance(0.08 * difficulty):
        scar = _intraparenchymal(draw, deep=False)[0]
        hu = draw.number(12, 24)
        found.append(Bleed(INTRAPARENCHYMAL, scar.centre, scar.extent_mm, hu, hu, rough_mm=3.0, mimic=True))
    if draw.chance(0.05 * difficulty):
        hygroma = _subdural(draw)[0]
        hu = draw.number(6, 16)
        found.append(Bleed(SUBDURAL, hygroma.centre, hygroma.extent_mm, hu, hu, mimic=True))
    return tuple(found)
