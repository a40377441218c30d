import base64
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from ichtune.report import plots
from ichtune.report.svg import draw_svg
from ichtune.windows import Window

RUNGS = [
    {"title": "prior", "oof_loss": 0.29, "crossfit_loss": 0.29, "crossfit_low": 0.25, "crossfit_high": 0.33},
    {"title": "blend", "oof_loss": 0.1, "crossfit_loss": 0.11, "test_loss": 0.12},
    {"title": "bare", "oof_loss": None},
]
POINTS = [{"predicted": 0.1, "observed": 0.2, "low": 0.0, "high": 0.4, "n": 9}]
RATES = {"any": 0.14, "subdural": 0.06}


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


@pytest.mark.parametrize(
    "svg",
    [
        plots.ladder_plot(RUNGS),
        plots.reliability_plot(POINTS),
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


def marked(losses, prior_loss, vertical=False):
    def draw(axes):
        axes.plot(losses, losses)
        plots.prior_line(axes, losses, prior_loss, vertical=vertical)
        plots.legend(axes, ncols=1)

    return texts(draw_svg("prior", "losses", draw))


@pytest.mark.parametrize("vertical", [False, True])
def test_one_diverged_loss_does_not_flatten_the_others(vertical):
    assert "8" in marked([0.1, 9.0], None)
    assert marked([0.1, 9.0], 0.29, vertical).count("8") == 1  # on the other axis


def test_a_prior_far_above_every_loss_is_named_and_not_drawn():
    assert "prior: 0.55, beyond the figure" in marked([0.1, 0.2], 0.55)
    assert "0.5" not in marked([0.1, 0.2], 0.55)
    assert "prior" in marked([0.1, 0.5], 0.55)
    assert not [text for text in marked([0.1, 0.5], None) if "prior" in text]


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
