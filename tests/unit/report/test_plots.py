import base64
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from ichtune.report import plots
from ichtune.windows import Window

RUNGS = [
    {"title": "prior", "oof_loss": 0.29, "crossfit_loss": 0.29, "crossfit_low": 0.25, "crossfit_high": 0.33},
    {"title": "blend", "oof_loss": 0.1, "crossfit_loss": 0.11, "test_loss": 0.12},
    {"title": "bare", "oof_loss": None},
]
POINTS = [{"predicted": 0.1, "observed": 0.2, "low": 0.0, "high": 0.4, "n": 9}]
CURVES = [("finished", [(1, 0.3), (2, 0.2)]), ("failed", [(1, 9.0)]), ("other", [(1, 0.3)]), ("stopped", [])]
SPENT = {"one": [(3, 0.3), (6, 0.1), (9, 0.2)], "two": [(2, 0.25)]}
GROUPS = {"brain": [("finished", 0.1), ("stopped", 0.3)], "40/80+80/200": [("finished", 0.2)]}
RATES = {"any": 0.14, "subdural": 0.06}


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


@pytest.mark.parametrize(
    "svg",
    [
        plots.ladder_plot(RUNGS),
        plots.reliability_plot(POINTS),
        plots.learning_curves(CURVES, 0.29),
        plots.learning_curves([("finished", [(1, 0.3)])], None),
        plots.best_so_far(SPENT, 0.29),
        plots.window_strip(GROUPS, None),
        plots.slices_per_series([30]),
        plots.label_rates(RATES, {0: RATES, 1: {"any": 0.1, "subdural": 0.0}}),
        plots.label_rates(RATES, {}),
    ],
)
def test_every_figure_is_one_well_formed_svg_with_named_axes(svg):
    assert svg.startswith("<svg ")
    assert [text for text in texts(svg) if text and len(text) > 3]


def test_a_ladder_without_a_figure_is_drawn_without_a_legend():
    assert "blend" in texts(plots.ladder_plot([{"title": "blend", "oof_loss": None}]))


def test_the_ladder_names_every_rung_and_only_the_kinds_of_loss_that_are_there():
    shown = texts(plots.ladder_plot(RUNGS))
    assert {"prior", "blend", "bare", "in sample", "test set"} <= set(shown)
    assert "test set" not in texts(plots.ladder_plot(RUNGS[:1]))


def test_each_way_of_ending_is_in_the_legend_once():
    shown = texts(plots.learning_curves(CURVES, 0.29))
    for status in ("finished", "failed", "other"):
        assert shown.count(status) == 1
    assert "stopped" not in shown  # it has no epoch to draw


def test_one_diverged_trial_does_not_flatten_the_others():
    cut = texts(plots.learning_curves(CURVES, 0.29))
    whole = texts(plots.learning_curves(CURVES, None))
    assert "8" in whole
    assert "8" not in cut


def test_every_search_and_every_window_set_is_named():
    assert {"one", "two"} <= set(texts(plots.best_so_far(SPENT, None)))
    assert {"brain", "40/80+80/200"} <= set(texts(plots.window_strip(GROUPS, None)))


def test_a_picture_is_the_slice_under_the_window():
    hu = np.array([[-100, 0], [40, 200]], dtype=np.int16)
    address = plots.picture(hu, Window(40, 80))
    head, body = address.split(",", 1)
    assert head == "data:image/png;base64"
    grey = cv2.imdecode(np.frombuffer(base64.b64decode(body), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(grey, [[0, 0], [128, 255]])


def test_a_large_picture_is_scaled_down_in_proportion():
    address = plots.picture(np.zeros((1024, 512), dtype=np.int16), Window(40, 80))
    grey = cv2.imdecode(np.frombuffer(base64.b64decode(address.split(",", 1)[1]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert grey.shape == (plots.PICTURE_PX, plots.PICTURE_PX // 2)
