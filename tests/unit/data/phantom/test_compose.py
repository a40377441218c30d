from dataclasses import replace

import numpy as np
import pytest

from ichtune.data.phantom.anatomy import FAR_MM, draw_head
from ichtune.data.phantom.bleeds import INTRAVENTRICULAR, SUBARACHNOID, SUBDURAL, Bleed
from ichtune.data.phantom.compose import compose_hu
from ichtune.labels import SUBTYPES

SHAPE = (2, 6, 6)


def fields_of(**values):
    """Fields of a slice deep inside a brain without structure, some replaced."""
    far = {
        "ventricle": FAR_MM,
        "cistern": FAR_MM,
        "deep_grey": FAR_MM,
        "tentorium": FAR_MM,
        "falx_gate": FAR_MM,
    }
    near = {"cavity": -40.0, "pial": -40.0, "skull": -47.0, "scalp": -53.0, "face": FAR_MM, "muscle": 0.5}
    rest = {"sulcus": 20.0, "tissue": 0.0, "bx": 30.0, "by": 0.0, "face_hu": 300.0}
    return {k: np.full(SHAPE, v, np.float32) for k, v in {**far, **near, **rest, **values}.items()}


def compose(bleeds=(), **values):
    head = replace(draw_head(np.random.default_rng(1), 1.0), atrophy=0.2)
    return compose_hu(head, tuple(bleeds), fields_of(**values), lambda f: f, 2.0)


@pytest.mark.parametrize(
    ("values", "expected_hu"),
    [
        ({}, 30.0),  # white matter
        ({"deep_grey": -10.0}, 37.0),
        ({"ventricle": -10.0}, 7.0),
        ({"cistern": -10.0}, 7.0),
        ({"cavity": 3.5, "skull": -3.5, "pial": 3.5}, 760.0),  # spongy middle of the skull
        ({"cavity": 20.0, "skull": 13.0, "scalp": 7.0, "pial": 20.0}, -1000.0),
    ],
)
def test_tissues_have_their_density(values, expected_hu):
    hu, area = compose(**values)
    assert hu == pytest.approx(expected_hu, abs=0.5)
    assert not area.any()


def test_blood_in_a_ventricle_needs_both():
    bleed = Bleed(INTRAVENTRICULAR, (0, 0, 0), (9, 9, 9), 65, 65)
    hu, area = compose([bleed], ventricle=-10.0, bleed0=-10.0)
    assert hu == pytest.approx(65.0, abs=0.5)
    assert area[SUBTYPES.index(INTRAVENTRICULAR)] == pytest.approx(36 * 4 * 0.85, rel=0.01)
    _, without = compose([bleed], bleed0=-10.0)
    assert not without.any()


def test_subarachnoid_blood_fills_fluid_only():
    bleed = Bleed(SUBARACHNOID, (0, 0, 0), (9, 9, 9), 70, 70)
    in_cistern, _ = compose([bleed], cistern=-10.0, bleed0=-10.0)
    in_brain, area = compose([bleed], bleed0=-10.0)
    assert in_cistern == pytest.approx(70.0, abs=0.5)
    assert in_brain == pytest.approx(30.0, abs=0.5)
    assert not area.any()


def test_mixed_subdural_is_denser_at_the_back():
    bleed = Bleed(SUBDURAL, (0.9, 0, 0.4), (60, 30, 9), 70, 30, level_y_mm=0.0)
    front, _ = compose([bleed], bleed0=-5.0, by=-30.0)
    back, _ = compose([bleed], bleed0=-5.0, by=30.0)
    assert front.max() == pytest.approx(30.0, abs=0.5)
    assert back.min() == pytest.approx(70.0, abs=0.5)


def test_a_slice_without_head_is_air():
    hu, _ = compose(cavity=80.0, skull=70.0, scalp=60.0, pial=80.0)
    assert (hu == -1000).all()
