import matplotlib
import numpy as np
import pytest
from PIL import Image

from ichtune.errors import StorageError
from ichtune.labels import LABELS
from ichtune.report.png import LABEL_COLOURS, png_page


def test_a_page_has_its_size_and_shows_a_canvas_pixel_by_pixel(tmp_path):
    canvas = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    with png_page(tmp_path / "new" / "a.png", 70, 40, "#ffffff") as page:
        page.paint(canvas)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png").convert("RGB")), canvas)


def test_text_and_axes_stand_where_they_are_put(tmp_path):
    with png_page(tmp_path / "a.png", 200, 100, "#ffffff") as page:
        page.write(120, 10, "$x_1$ right", 12, "#ff0000", align="right")
        axes = page.axes(20, 60, 50, 30)
        axes.set_axis_off()
        axes.axhspan(0, 1, color="#0000ff")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    red = np.argwhere((pixels[..., 0] > 200) & (pixels[..., 1] < 100))
    blue = np.argwhere((pixels[..., 2] > 200) & (pixels[..., 0] < 50))
    assert 8 <= red[:, 0].min() <= 14
    assert 110 <= red[:, 1].max() <= 121
    assert blue.min(axis=0).tolist() == [60, 20]
    assert (blue.max(axis=0) + 1).tolist() == [90, 70]


def test_the_same_page_gives_the_same_bytes_whatever_the_readers_settings(tmp_path):
    def draw(name: str) -> bytes:
        with png_page(tmp_path / name, 80, 30, "#000000", {"font.size": 9}) as page:
            page.write(5, 5, "words", 12, "#ffffff")
        return (tmp_path / name).read_bytes()

    first = draw("a.png")
    with matplotlib.rc_context({"font.family": ["monospace"], "savefig.dpi": 50}):
        assert draw("b.png") == first
        assert matplotlib.rcParams["savefig.dpi"] == 50


def test_nothing_is_left_of_a_page_that_failed(tmp_path):
    with pytest.raises(ZeroDivisionError), png_page(tmp_path / "a.png", 10, 10, "#000000"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"), png_page(tmp_path / "file" / "a.png", 9, 9, "#000000"):
        pass


def test_every_label_has_a_colour_of_its_own():
    assert list(LABEL_COLOURS) == list(LABELS)
    assert len(set(LABEL_COLOURS.values())) == len(LABELS)
