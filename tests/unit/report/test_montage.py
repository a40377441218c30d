from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ichtune.report import montage
from ichtune.report.montage import TILE_PX, write_montage
from ichtune.report.png import LABEL_COLOURS
from ichtune.report.series_view import SeriesView, Tile
from ichtune.windows import WINDOW_SETS, Window, resolve_windows, window_image

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn

BRAIN = [resolve_windows("brain")]


class Cache:
    """Slices of one value each: row n holds n HU; row 9 was refused."""

    def shape(self, row: int) -> tuple[int, int] | None:
        return None if row == 9 else (8, 4)

    def read(self, row: int) -> np.ndarray:
        return np.full((8, 4), row, dtype=np.int16)


def tile(row: int, is_positive: tuple[bool, ...] | None = None, refusal: str = "") -> Tile:
    return Tile(row, -1 if refusal else row, float(row), (), is_positive, refusal)


def view_of(*tiles: Tile, notes: tuple[str, ...] = ()) -> SeriesView:
    positives = dict.fromkeys(LABEL_COLOURS, 1) if any(t.is_positive for t in tiles) else None
    return SeriesView("1.2.3", "P1", "none", "facts", tiles, len(tiles), positives, notes)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def grey(hu: int, window: Window) -> int:
    """What a slice of one value is drawn as."""
    return int(np.rint(window_image(np.array([hu]), window) * 255)[0])


def find(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere((picture == colour).all(axis=-1))


def test_each_window_is_a_row_and_three_end_with_their_rgb(tmp_path):
    view = view_of(tile(20), tile(70))
    (one,) = write_montage(view, Cache(), BRAIN, tmp_path / "one.png")
    (two,) = write_montage(view, Cache(), [*BRAIN, WINDOW_SETS["brain_subdural_bone"]], tmp_path / "two.png")
    brain, subdural, bone = (grey(20, window) for window in WINDOW_SETS["brain_subdural_bone"])
    assert len(find(pixels(one), (brain,) * 3)) == TILE_PX * TILE_PX // 2, "4 x 8 pixels keep their shape"
    shown = pixels(two)
    assert shown.shape[0] > pixels(one).shape[0] + 4 * TILE_PX
    rows = [find(shown, (value,) * 3)[:, 0] for value in (brain, subdural, bone)]
    composite = find(shown, (brain, subdural, bone))
    assert len(rows[0]) == TILE_PX * TILE_PX, "brain stands in both sets"
    assert rows[0].max() < rows[1].min() < rows[1].max() < rows[2].min()
    assert len(composite) == TILE_PX * TILE_PX // 2
    assert composite[:, 0].min() > rows[2].max()


def test_slices_stand_from_left_to_right_and_wrap(tmp_path):
    view = view_of(*(tile(10 + 3 * n) for n in range(14)))
    (path,) = write_montage(view, Cache(), BRAIN, tmp_path / "a.png")
    greys = [grey(10 + 3 * n, *BRAIN[0]) for n in range(14)]
    places = [find(pixels(path), (value,) * 3).mean(axis=0) for value in greys]
    tops = [round(top) for top, _ in places]
    assert len(set(tops[:9])) == 1
    assert tops[-1] > tops[0]
    lefts = [left for top, left in places if round(top) == tops[0]]
    assert lefts == sorted(lefts)


def test_labels_are_a_coloured_strip_in_label_order(tmp_path):
    labels = tuple(n in (0, 2, 5) for n in range(len(LABEL_COLOURS)))
    (path,) = write_montage(view_of(tile(0, labels), tile(1)), Cache(), BRAIN, tmp_path / "a.png")
    below_legend = pixels(path)[montage._HEAD_PX :]
    colours = [tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in LABEL_COLOURS.values()]
    found = [find(below_legend, colour) for colour in colours]
    assert [len(where) > 100 for where in found] == list(labels)
    assert found[0][:, 1].max() < found[2][:, 1].min() < found[5][:, 1].min()


def test_a_refused_file_is_a_crossed_field(tmp_path):
    (path,) = write_montage(view_of(tile(0), tile(9, refusal="no_pixel_data")), Cache(), BRAIN, tmp_path / "a.png")
    assert len(find(pixels(path), montage._REFUSED_COLOUR)) > TILE_PX * TILE_PX // 2


def test_many_slices_make_pages_and_lose_none(tmp_path, monkeypatch):
    monkeypatch.setattr(montage, "MAX_PAGE_PX", 220)
    values = [hu for hu in range(1, 80) if hu % 8 and hu != 9][:32]  # every eighth lies half-way between two greys
    view = view_of(*(tile(hu) for hu in values), notes=("a note",))
    paths = write_montage(view, Cache(), BRAIN, tmp_path / "a.png")
    assert [path.name for path in paths] == [f"a_page_{n}_of_3.png" for n in (1, 2, 3)]
    shown = [pixels(path) for path in paths]
    for hu in values:
        value = grey(hu, *BRAIN[0])
        assert sum(len(find(page, (value,) * 3)) >= TILE_PX * TILE_PX // 2 for page in shown) == 1


def test_generated_data_is_called_so_and_notes_and_crop_are_written(tmp_path):
    view = view_of(tile(0))
    plain = pixels(*write_montage(view, Cache(), BRAIN, tmp_path / "plain.png"))
    said = pixels(*write_montage(view, Cache(), BRAIN, tmp_path / "said.png", is_generated=True))
    assert plain.shape == said.shape
    assert (plain != said).any()
    cropped = pixels(*write_montage(replace(view, crop="head"), Cache(), BRAIN, tmp_path / "cropped.png"))
    assert (plain != cropped).any()
    noted = pixels(*write_montage(replace(view, notes=("a", "b")), Cache(), BRAIN, tmp_path / "noted.png"))
    assert noted.shape[0] == plain.shape[0] + 2 * montage._LINE_PX


@pytest.mark.parametrize("name", sorted(WINDOW_SETS))
def test_every_window_set_can_be_drawn(tmp_path, name):
    (path,) = write_montage(view_of(tile(0)), Cache(), [WINDOW_SETS[name]], tmp_path / "a.png")
    assert path.stat().st_size > 1000
