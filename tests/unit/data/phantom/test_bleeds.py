import numpy as np
import pytest

from ichtune.data.phantom import anatomy
from ichtune.data.phantom.bleeds import (
    EPIDURAL,
    INTRAPARENCHYMAL,
    INTRAVENTRICULAR,
    MIN_AREA_MM2,
    SUBDURAL,
    Bleed,
    draw_bleeds,
    draw_mimics,
    push_of,
    region_mm,
    thickness_mm,
)
from ichtune.labels import SUBTYPES


@pytest.fixture(scope="module")
def head() -> anatomy.Head:
    return anatomy.draw_head(np.random.default_rng(4), 1.0)


def arc(head, angles):
    """Points along the left inner table in one axial plane."""
    x = (60 * np.cos(angles)).astype(np.float32)
    y = (74 * np.sin(angles)).astype(np.float32)
    return anatomy.place(head, x, y, np.full_like(x, 10.0), ())


def test_every_subtype_has_a_least_area():
    assert set(MIN_AREA_MM2) == set(SUBTYPES)


def test_epidural_is_a_short_lens_and_subdural_a_long_crescent(head):
    angles = np.linspace(-1.4, 1.4, 201)
    p = arc(head, angles)
    lens = thickness_mm(Bleed(EPIDURAL, (0.99, 0.0, 0.1), (27, 23, 18), 70, 70), p)
    crescent = thickness_mm(Bleed(SUBDURAL, (0.99, 0.0, 0.1), (65, 30, 9), 70, 70), p)
    assert lens.max() > crescent.max()
    assert (lens > 0).sum() < 0.7 * (crescent > 0).sum()
    assert (crescent > 0.95 * crescent.max()).sum() > 3 * (lens > 0.95 * lens.max()).sum()


def test_subdural_blood_stays_on_its_side(head):
    p = anatomy.place(head, *(np.array([v], np.float32) for v in (-3.0, -75.0, 20.0)), ())
    assert thickness_mm(Bleed(SUBDURAL, (0.5, -0.86, 0.2), (80, 40, 9), 70, 70), p)[0] <= 0


def test_ventricular_blood_layers_at_the_back(head):
    p = anatomy.place(head, *(np.array(v, np.float32) for v in ([22, 22], [20, 55], [6, 6])), ())
    layered = region_mm(Bleed(INTRAVENTRICULAR, (0, 40, 8), (70, 90, 30), 60, 60, level_y_mm=40.0), head, p)
    assert layered[0] > 0 > layered[1]


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_draws_the_subtype_that_was_asked_for(subtype):
    for seed in range(12):
        bleeds = draw_bleeds(np.random.default_rng(seed), frozenset({subtype}), 1.0)
        assert {b.subtype for b in bleeds} == {subtype}
        assert not any(b.mimic for b in bleeds)
        assert all(15 <= b.hu <= 90 for b in bleeds)


def test_difficulty_takes_contrast():
    def mean_hu(difficulty):
        draws = [draw_bleeds(np.random.default_rng(s), frozenset({INTRAPARENCHYMAL}), difficulty) for s in range(20)]
        return np.mean([b.hu for d in draws for b in d])

    assert mean_hu(0.5) > mean_hu(1.0) > mean_hu(2.0) > 34


def test_mimics_are_marked_and_become_more_with_difficulty():
    easy, hard = ([m for s in range(60) for m in draw_mimics(np.random.default_rng(s), d)] for d in (0.5, 3.0))
    assert all(m.mimic for m in easy + hard)
    assert len(hard) > len(easy)


def test_only_bleeds_with_mass_push():
    iph = Bleed(INTRAPARENCHYMAL, (20, 0, 0), (10, 10, 10), 70, 70, oedema_mm=2.0, shift_mm=5.0)
    assert push_of(iph).shift_mm == 5.0
    assert push_of(Bleed(SUBDURAL, (0.9, 0, 0.4), (60, 30, 8), 70, 70, shift_mm=4.0)).along_x == -1.0
    assert push_of(Bleed(INTRAVENTRICULAR, (0, 0, 0), (9, 9, 9), 70, 70)) is None
