"""Where the head lies: on drawn heads with a headrest, on the phantom and on a real tilted series."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest

from ichtune.data.cache import head_crop
from ichtune.data.cache.head_crop import body_part, head_box, series_boxes, tight_box
from ichtune.data.cache.resize import WHOLE_BOX, fit_hu
from ichtune.data.phantom.anatomy import draw_head
from ichtune.data.phantom.scan import draw_scan, render_series
from ichtune.errors import ConfigError

SIZE = 256
TILTED = Path(__file__).parents[5] / "shared" / "data" / "head_ct_tilt"
AIR, BRAIN, BONE, SHELL = -1000, 30, 900, 100


class Held:
    """What ``series_boxes`` asks of a cache, for slices in memory."""

    cache_id, crop = "held", "none"

    def __init__(self, slices: list[np.ndarray | None]) -> None:
        self.slices, self.n_rows = slices, len(slices)

    def shape(self, row: int) -> tuple[int, int] | None:
        hu = self.slices[row]
        return None if hu is None else hu.shape

    def read(self, row: int) -> np.ndarray:
        hu = self.slices[row]
        assert hu is not None
        return hu


def air() -> np.ndarray:
    return np.full((SIZE, SIZE), AIR, np.int16)


def with_headrest(hu: np.ndarray, centre=(128, 128), radius=112, width=4) -> np.ndarray:
    """Draw a thin curved shell below the head, 4 px wide: 3.6 mm of a usual field of view."""
    cv2.ellipse(hu, centre, (radius, radius), 0, 20, 160, SHELL, width)
    return hu


def head(centre=(128, 120), axes=(70, 88), tilt_deg=0.0, headrest=True) -> np.ndarray:
    """Draw a skull, brain and, touching nothing or the skin, a headrest; axes are half widths in pixels."""
    hu = with_headrest(air()) if headrest else air()
    cv2.ellipse(hu, centre, axes, tilt_deg, 0, 360, BONE, -1)
    cv2.ellipse(hu, centre, (axes[0] - 6, axes[1] - 6), tilt_deg, 0, 360, BRAIN, -1)
    return hu


def table_only() -> np.ndarray:
    hu = air()
    hu[236:, :] = SHELL
    return hu


def read_hu(path: Path) -> np.ndarray:
    file = pydicom.dcmread(path)
    return (file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)).astype(np.int16)


def slices_of(*series: str) -> pd.DataFrame:
    return pd.DataFrame({"series_instance_uid": pd.Series(series, dtype="string")})


def boxes_of(slices: list[np.ndarray | None], kind="head", series: tuple[str, ...] | None = None) -> np.ndarray:
    return series_boxes(Held(slices), slices_of(*(series or ("s",) * len(slices))), kind)  # type: ignore[arg-type]


def holds(box: np.ndarray | tuple[float, ...], mask: np.ndarray) -> bool:
    """Whether every marked pixel of a square slice lies in a box."""
    top, left, side = (round(float(part) * len(mask)) for part in box)
    rows, columns = np.nonzero(mask)
    is_in = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return bool(is_in.all())


@pytest.mark.parametrize(
    ("centre", "axes", "tilt_deg"),
    [
        ((128, 120), (70, 88), 0),
        ((128, 134), (70, 88), 0),  # lies in the headrest
        ((90, 100), (55, 70), 0),
        ((150, 110), (60, 85), 25),
        ((128, 120), (30, 30), 0),
    ],
)
def test_the_box_is_square_around_the_head_without_the_headrest(centre, axes, tilt_deg) -> None:
    bare = head(centre, axes, tilt_deg, headrest=False)
    box = head_box(head(centre, axes, tilt_deg))
    assert box is not None
    assert holds(box, bare > AIR)
    rows, columns = np.nonzero(bare > AIR)
    longer = max(np.ptp(rows), np.ptp(columns)) / SIZE
    assert longer < box[2] < longer * 1.1 + 2 / 128
    middle = (box[0] + box[2] / 2) * SIZE, (box[1] + box[2] / 2) * SIZE
    assert middle == pytest.approx(((rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2), abs=4)


def test_a_head_at_the_edge_has_a_box_that_sticks_out_into_air() -> None:
    hu = head((40, 120), (60, 60))
    box = head_box(hu)
    assert box is not None
    assert box[1] < 0
    assert holds(box, head((40, 120), (60, 60), headrest=False) > AIR)
    cropped = fit_hu(hu, 64, box)
    assert (cropped[:, 0] == -1024).all()
    assert (cropped[:, -1] == AIR).all()


@pytest.mark.parametrize("hu", [air(), with_headrest(air()), np.full((16, 16), AIR, np.int16)])
def test_without_a_body_there_is_no_box(hu: np.ndarray) -> None:
    assert head_box(hu) is None
    assert boxes_of([hu]).tolist() == [list(WHOLE_BOX)]


def test_a_thick_cup_is_a_shell_and_the_smaller_head_in_it_is_found() -> None:
    cup = with_headrest(air(), width=20)
    assert head_box(cup) is None
    cv2.circle(cup, (128, 150), 30, BRAIN, -1)
    box = head_box(cup)
    assert box is not None
    assert box[2] == pytest.approx(61 / 256 * 1.06, abs=0.02)


def test_a_series_has_one_box_around_all_its_slices() -> None:
    axes = [(50, 66), (66, 84), (70, 88), (60, 70), (40, 48), (14, 16)]
    stack = [head((128, 116 + 2 * i), a) for i, a in enumerate(axes)]
    boxes = boxes_of([*stack])
    assert (boxes == boxes[0]).all()
    bare = [head((128, 116 + 2 * i), a, headrest=False) for i, a in enumerate(axes)]
    assert all(holds(boxes[0], hu > AIR) for hu in bare)
    assert boxes[0, 2] < 0.76


def test_each_series_has_its_own_box_whatever_the_order_of_rows() -> None:
    small, large = head(axes=(40, 50)), head(axes=(70, 88))
    boxes = boxes_of([small, large, None, small, large, small], series=("a", "b", "a", "a", "b", "a"))
    assert (boxes[[0, 3, 5]] == boxes[0]).all()
    assert (boxes[1] == boxes[4]).all()
    assert boxes[0, 2] < boxes[1, 2]
    assert boxes[2].tolist() == list(WHOLE_BOX)
    assert boxes.dtype == np.float64


@pytest.mark.parametrize("outlier", [table_only(), with_headrest(air(), width=20), air(), None])
def test_a_slice_without_a_head_does_not_change_the_box(outlier: np.ndarray | None) -> None:
    stack = [head(axes=(70 - 5 * i, 80 - 5 * i)) for i in range(5)]
    assert boxes_of([*stack, outlier])[0].tolist() == boxes_of([*stack])[0].tolist()
    assert boxes_of([outlier, *stack])[1].tolist() == boxes_of([*stack])[0].tolist()


def test_a_series_that_fills_the_field_of_view_or_shows_a_speck_is_not_cropped() -> None:
    assert boxes_of([np.full((SIZE, SIZE), BRAIN, np.int16)]).tolist() == [list(WHOLE_BOX)]
    assert boxes_of([head(axes=(12, 12), headrest=False)]).tolist() == [list(WHOLE_BOX)]


def test_the_box_does_not_depend_on_the_size_of_the_cache() -> None:
    full = cv2.resize(head(), (512, 512), interpolation=cv2.INTER_NEAREST)
    boxes = [head_box(fit_hu(full, size)) for size in (128, 256, 512)]
    np.testing.assert_allclose(boxes[0], boxes[1], atol=0.01)
    np.testing.assert_allclose(boxes[2], boxes[1], atol=0.01)
    wide = np.full((200, 400), AIR, np.int16)
    wide[40:160, 120:240] = BRAIN
    box = head_box(wide)
    assert box is not None
    assert box == pytest.approx((140 / 400 - 0.009, 120 / 400 - 0.009, 0.318), abs=0.02)


def test_the_tight_box_is_the_bounding_box_of_what_is_bright_kept_square() -> None:
    hu = air()
    hu[40:100, 60:160] = 1
    hu[10, 10] = 0
    assert tight_box(hu) == ((70 - 50) / SIZE, 60 / SIZE, 100 / SIZE)
    hu[250, 10] = SHELL  # one bright pixel is enough: that is how the seed's crop works
    assert tight_box(hu)[2] == 211 / SIZE
    assert tight_box(air()) == WHOLE_BOX


def test_tight_boxes_differ_from_slice_to_slice() -> None:
    small, large = head(axes=(40, 50), headrest=False), head(axes=(70, 88), headrest=False)
    boxes = boxes_of([small, large, None, air()], kind="tight")
    assert boxes[0].tolist() == list(tight_box(small))
    assert boxes[1].tolist() == list(tight_box(large))
    assert boxes[2:].tolist() == [list(WHOLE_BOX)] * 2


def test_only_known_crops_of_whole_slices() -> None:
    for kind in ("none", "heads"):
        with pytest.raises(ConfigError, match=f"unknown crop '{kind}'"):
            boxes_of([air()], kind=kind)
    cropped = Held([air()])
    cropped.crop = "head"  # type: ignore[misc]
    with pytest.raises(ConfigError, match="is cropped: head"):
        series_boxes(cropped, slices_of("s"), "head")  # type: ignore[arg-type]


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(head_crop, "_TELL_ROWS", 2)
    series_boxes(Held([air()] * 5), slices_of(*"aaaaa"), "head", lambda *at: told.append(at))  # type: ignore[arg-type]
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("seed", [0, 1])
def test_phantom_heads_are_cut_out_whole_and_without_their_headrest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scan = draw_scan(rng, 128, 1.0)
    series = render_series(rng, draw_head(rng, 1.0), (), scan)
    boxes = boxes_of(list(series.hu))
    assert (boxes == boxes[0]).all()
    assert boxes[0, 2] < 0.93
    # tissue away from the headrest, which is the only thing below the lowest part of the head
    for hu in series.hu:
        part = body_part(hu)
        if part is not None:
            assert boxes[0, 0] <= part[0]
            assert part[1] <= boxes[0, 0] + boxes[0, 2]
        assert holds(boxes[0], cv2.erode((hu > 0).astype(np.uint8), np.ones((5, 5))) > 0)


@pytest.mark.skipif(not TILTED.is_dir(), reason="needs the tilted head CT series in ../shared/data")
def test_a_real_tilted_series_keeps_all_of_its_head() -> None:
    stack = [read_hu(path) for path in sorted(TILTED.glob("*.dcm"))]
    boxes = boxes_of([fit_hu(hu, SIZE) for hu in stack])
    assert (boxes == boxes[0]).all()
    assert boxes[0, 2] < 0.95
    tight = boxes_of([fit_hu(hu, SIZE) for hu in stack], kind="tight")
    for hu, own in zip(stack, tight, strict=True):
        assert holds(boxes[0], hu > 0)
        assert holds(own, cv2.erode((hu > 0).astype(np.uint8), np.ones((3, 3))) > 0)
