"""A series as a picture: every slice in position order under each window of each window set, with its labels.

A page is cut into bands of slices. A band has a caption a slice (rank, z, what is unusual, labels as a coloured
strip) and under it a row of pictures a window, so that one slice stands in one column under all of them. A set of
three windows ends with their RGB composite, which is what a network sees. Only the HU cache is read.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ichtune.data.cache.hu_cache import HuCache
from ichtune.labels import LABELS
from ichtune.report.png import LABEL_COLOURS, Page, png_page
from ichtune.report.series_view import SeriesView, Tile
from ichtune.windows import WINDOW_SETS, Window, window_image, window_set_name

PAPER, INK, MUTED, ALARM = "#101014", "#f2f2f2", "#9a9aa4", "#ff9d5c"
TILE_PX = 128
MIN_COLUMNS, MAX_COLUMNS = 9, 12
#: A page grows no higher than this unless a single band does.
MAX_PAGE_PX = 2400
_MARGIN_PX, _NAMES_PX, _GAP_PX = 16, 96, 4
_CAPTION_PX, _STRIP_PX, _BAND_GAP_PX = 44, 10, 14
_HEAD_PX, _LINE_PX = 84, 18
_SET_GAP_PX = 8
_OFF_COLOUR, _REFUSED_COLOUR = (44, 44, 52), (58, 30, 26)
_N_RGB = 3
#: Mean width of a letter as a share of the size of the font.
_LETTER_SHARE = 0.6


@dataclass(frozen=True)
class _Row:
    """One row of pictures of a band: grey under one window, RGB under three."""

    windows: tuple[Window, ...]
    name: str
    begins_set: bool = False
    set_name: str = ""


@dataclass(frozen=True)
class _Grid:
    """Where everything on a page lies, in pixels from its top left corner."""

    n_tiles: int
    n_columns: int
    rows: tuple[_Row, ...]
    n_notes: int

    @property
    def band_px(self) -> int:
        """Height of a band: caption and one row of pictures a window."""
        return self._row_offset(len(self.rows)) + _BAND_GAP_PX

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the page."""
        width = _MARGIN_PX + _NAMES_PX + self.n_columns * (TILE_PX + _GAP_PX) - _GAP_PX + _MARGIN_PX
        return self._bands_top + -(-self.n_tiles // self.n_columns) * self.band_px, width

    @property
    def _bands_top(self) -> int:
        return _HEAD_PX + self.n_notes * _LINE_PX

    def place(self, number: int) -> tuple[int, int]:
        """Left and top of a tile's caption."""
        band, column = divmod(number, self.n_columns)
        return _MARGIN_PX + _NAMES_PX + column * (TILE_PX + _GAP_PX), self._bands_top + band * self.band_px

    def row_top(self, number: int, row: int) -> int:
        """Top of a tile's picture in one row of its band."""
        return self.place(number)[1] + self._row_offset(row)

    def _row_offset(self, row: int) -> int:
        """Height of the caption and the rows above one row; sets stand a little apart."""
        n_sets_before = sum(other.begins_set for other in self.rows[1 : row + 1])
        return _CAPTION_PX + row * (TILE_PX + _GAP_PX) + n_sets_before * _SET_GAP_PX


def write_montage(
    view: SeriesView,
    hu_cache: HuCache,
    window_sets: Sequence[tuple[Window, ...]],
    path: Path,
    *,
    is_generated: bool = False,
) -> list[Path]:
    """Draw a series.

    Args:
        view: what to show.
        hu_cache: where its pixels lie.
        window_sets: each as a block of rows.
        path: the PNG to write; a series of several pages gives ``NAME_page_1_of_3.png`` and so on.
        is_generated: whether the data is generated; said on every page.

    Returns:
        The files written.

    Raises:
        StorageError: a file cannot be written.
        DataError: the cache is damaged.
    """
    rows = _rows(window_sets)
    pages = _pages(view, rows)
    paths = [path] if len(pages) == 1 else [_numbered(path, number, len(pages)) for number in range(1, len(pages) + 1)]
    for number, (tiles, page_path) in enumerate(zip(pages, paths, strict=True), 1):
        grid = _Grid(len(tiles), _n_columns(len(view.tiles)), rows, len(view.notes))
        canvas = _canvas(tiles, grid, hu_cache)
        height, width = grid.size_px
        with png_page(page_path, width, height, PAPER) as page:
            page.paint(canvas)
            _write_head(page, view, f"page {number} of {len(pages)}" if len(pages) > 1 else "", is_generated)
            _write_bands(page, tiles, grid, has_labels=view.positives is not None)
    return paths


def _numbered(path: Path, number: int, n_pages: int) -> Path:
    return path.with_name(f"{path.stem}_page_{number}_of_{n_pages}{path.suffix}")


def _rows(window_sets: Sequence[tuple[Window, ...]]) -> tuple[_Row, ...]:
    rows = []
    for windows in window_sets:
        rows.append(_Row(windows[:1], _window_name(windows[0]), True, _set_name(windows)))
        rows += [_Row((window,), _window_name(window)) for window in windows[1:]]
        if len(windows) == _N_RGB:
            rows.append(_Row(windows, "RGB of the three"))
    return tuple(rows)


def _set_name(windows: tuple[Window, ...]) -> str:
    """The name of a set of several windows; a single window's own name says it all."""
    return window_set_name(windows) if len(windows) > 1 else ""


def _window_name(window: Window) -> str:
    numbers = f"{window.center_hu:g}/{window.width_hu:g}"
    name = next((name for name, windows in WINDOW_SETS.items() if windows == (window,)), "")
    return f"{name.replace('_', ' ')} {numbers}".strip()


def _n_columns(n_tiles: int) -> int:
    """Columns that fill the bands evenly; never so few that the head finds no room."""
    n_bands = max(1, -(-n_tiles // MAX_COLUMNS))
    return max(MIN_COLUMNS, -(-n_tiles // n_bands))


def _pages(view: SeriesView, rows: tuple[_Row, ...]) -> list[Sequence[Tile]]:
    """Cut the tiles into pages of whole bands, of nearly equal length."""
    tiles, n_columns = view.tiles, _n_columns(len(view.tiles))
    n_bands = -(-len(tiles) // n_columns)
    band_px = _Grid(len(tiles), n_columns, rows, len(view.notes)).band_px
    n_pages = -(-n_bands // max(1, (MAX_PAGE_PX - _HEAD_PX) // band_px))
    size = -(-n_bands // n_pages) * n_columns
    return [tiles[start : start + size] for start in range(0, len(tiles), size)]


def _canvas(tiles: Sequence[Tile], grid: _Grid, hu_cache: HuCache) -> np.ndarray:
    """Pictures and label strips of one page, uint8 (H, W, 3)."""
    canvas = np.empty((*grid.size_px, 3), dtype=np.uint8)
    canvas[:] = _rgb(PAPER)
    for number, tile in enumerate(tiles):
        left = grid.place(number)[0]
        _paint_strip(canvas, tile, left, grid.row_top(number, 0) - _STRIP_PX - 2)
        hu_HW = None if hu_cache.shape(tile.row) is None else hu_cache.read(tile.row)
        for n, row in enumerate(grid.rows):
            top = grid.row_top(number, n)
            canvas[top : top + TILE_PX, left : left + TILE_PX] = _picture(hu_HW, row.windows)
    return canvas


def _paint_strip(canvas: np.ndarray, tile: Tile, left: int, top: int) -> None:
    """One field a label, in label order: coloured when positive, dark when negative; nothing without labels."""
    if tile.is_positive is None:
        return
    edges = np.linspace(left, left + TILE_PX, len(LABELS) + 1).round().astype(int)
    for label, is_positive, start, end in zip(LABELS, tile.is_positive, edges[:-1], edges[1:], strict=True):
        colour = _rgb(LABEL_COLOURS[label]) if is_positive else _OFF_COLOUR
        canvas[top : top + _STRIP_PX, start + 1 : end - 1] = colour


def _picture(hu_HW: np.ndarray | None, windows: Sequence[Window]) -> np.ndarray:
    """One slice under one or three windows as uint8 (TILE_PX, TILE_PX, 3); a crossed field without a slice."""
    picture = np.zeros((TILE_PX, TILE_PX, 3), dtype=np.uint8)
    if hu_HW is None:
        picture[:] = _REFUSED_COLOUR
        for start, end in (((0, 0), (TILE_PX, TILE_PX)), ((TILE_PX, 0), (0, TILE_PX))):
            cv2.line(picture, start, end, (96, 52, 44), 1, cv2.LINE_AA)
        return picture
    scale = TILE_PX / max(hu_HW.shape)
    size = (max(1, round(hu_HW.shape[1] * scale)), max(1, round(hu_HW.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    grey = [cv2.resize(window_image(hu_HW, window), size, interpolation=how) for window in windows]
    left, top = (TILE_PX - size[0]) // 2, (TILE_PX - size[1]) // 2
    channels = np.stack(grey * (_N_RGB // len(grey)), axis=-1)
    picture[top : top + size[1], left : left + size[0]] = np.rint(np.clip(channels, 0, 1) * 255)
    return picture


def _write_head(page: Page, view: SeriesView, which_page: str, is_generated: bool) -> None:
    page.write(_MARGIN_PX, 12, f"Series {view.series_instance_uid}", 16, INK)
    said = ", ".join(part for part in ("generated data" if is_generated else "", which_page) if part)
    page.write(page.width - _MARGIN_PX, 12, said, 14, ALARM, align="right")
    cropped = "" if view.crop == "none" else f", {view.crop} crop"
    facts = f"patient {view.patient_id}, {view.facts}{cropped}"
    size_px = min(12.0, (page.width - 2 * _MARGIN_PX) / (_LETTER_SHARE * len(facts)))
    page.write(_MARGIN_PX, 36, facts, size_px, MUTED)
    _write_legend(page, view)
    for number, note in enumerate(view.notes):
        page.write(_MARGIN_PX, _HEAD_PX - 4 + number * _LINE_PX, note, 12, ALARM)


def _write_legend(page: Page, view: SeriesView) -> None:
    if view.positives is None:
        page.write(_MARGIN_PX, 57, "no labels", 12, MUTED)
        return
    page.write(_MARGIN_PX, 57, "labels, left to right:", 12, MUTED)
    x = _MARGIN_PX + 150.0
    for label, n_positive in view.positives.items():
        entry = f"{label} ({n_positive} {'slice' if n_positive == 1 else 'slices'})"
        page.write(x, 56, "■", 14, LABEL_COLOURS[label])
        page.write(x + 18, 57, entry, 12, INK if n_positive else MUTED)
        x += 42 + 12 * _LETTER_SHARE * len(entry)


def _write_bands(page: Page, tiles: Sequence[Tile], grid: _Grid, has_labels: bool) -> None:
    for number, tile in enumerate(tiles):
        left, top = grid.place(number)
        if number % grid.n_columns == 0:
            for n, row in enumerate(grid.rows):
                _write_name(page, row, grid.row_top(number, n))
        z = f"z {tile.z_mm:.1f} mm" if tile.z_mm == tile.z_mm else "z unknown"
        page.write(left, top, f"{tile.rank}" if tile.rank >= 0 else "–", 12, INK)
        page.write(left + TILE_PX - 6, top, z, 11, MUTED, align="right")
        page.write(left, top + 15, _shortened(", ".join(tile.marks)), 10.5, ALARM)
        if tile.refusal:
            words = "\n".join(textwrap.wrap(tile.refusal.replace("_", " "), 16))
            page.write(left + 6, grid.row_top(number, 0) + 6, words, 12, ALARM, box=PAPER)
        elif has_labels and tile.is_positive is None:
            page.write(left, grid.row_top(number, 0) - 14, "unlabelled", 10, MUTED)


def _write_name(page: Page, row: _Row, top: int) -> None:
    """Name one row, and above it the set that it begins."""
    if row.set_name:
        page.write(_MARGIN_PX, top, row.set_name.replace("_", "_\n").replace("+", "+\n"), 11, MUTED)
    page.write(_MARGIN_PX, top + TILE_PX - 34, "\n".join(textwrap.wrap(row.name, 12)), 12, INK)


def _shortened(marks: str, n_letters: int = 23) -> str:
    return marks if len(marks) <= n_letters else marks[: n_letters - 1] + "…"


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
