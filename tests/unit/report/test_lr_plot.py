"""The learning-rate plot is a picture of the sweep."""

from pathlib import Path

import cv2
import pytest

from ichtune.errors import StorageError
from ichtune.report.lr_plot import write_lr_plot
from ichtune.training.lr_finder import LrCurve

CURVE = LrCurve((1e-4, 1e-3, 1e-2, 1e-1), (0.7, 0.5, 0.4, 2.0), (0.7, 0.6, 0.5, 1.0))


def test_a_png_is_written_and_the_marks_are_in_it(tmp_path: Path) -> None:
    write_lr_plot(CURVE, {"falls fastest": 1e-3, "a tenth of the lowest": 1e-3}, "a recipe", tmp_path / "a.png")
    write_lr_plot(CURVE, {}, "a recipe", tmp_path / "b.png")
    one, other = (cv2.imread(str(tmp_path / name)) for name in ("a.png", "b.png"))
    assert one is not None
    assert other is not None
    assert one.shape == other.shape == (504, 864, 3)
    assert (one != other).any()
    assert one.std() > 10


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write"):
        write_lr_plot(CURVE, {}, "a recipe", tmp_path / "file" / "a.png")
