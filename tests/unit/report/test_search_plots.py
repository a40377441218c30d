import xml.etree.ElementTree as ET

import pytest

from ichtune.report import search_plots as plots
from ichtune.report.search_axes import Axis
from ichtune.report.search_plots import Curve, Point, Rung

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn

CURVES = [
    Curve("finished", [(1, 0.3), (2, 0.2)], [Rung(1, 0.25, 0.5, False)]),
    Curve("failed", [(1, 9.0)]),
    Curve("other", [(1, 0.3)]),
    Curve("stopped", [(1, 0.4)], [Rung(1, 0.35, 0.5, True)]),
    Curve("interrupted", []),
]
SPENT = {"one": [(3, 0.3), (6, 0.1), (9, 0.2)], "two": [(2, 0.25)]}
GROUPS = {"brain": [("finished", 0.1), ("stopped", 0.3)], "40/80+80/200": [("finished", 0.2)]}
AXES = [
    Axis("lr", 1e-4, 1e-2, log=True),
    Axis("windows", 0.0, 1.0, options=("brain", "bone")),
    Axis("momentum", 0.0, 1.0),
    Axis("image_px", 64.0, 256.0, step=64.0),
]
POINTS = [
    Point("finished", 0.10, 0, {"lr": 1e-3, "windows": "brain", "image_px": 64}),
    Point("stopped", 0.08, 1, {"lr": 2e-3, "windows": "bone", "momentum": 0.5, "image_px": 128}),
    Point("stopped", 0.30, 2, {"lr": 5e-3, "windows": "bone", "image_px": 256}),
    Point("failed", 9.00, 3, {"lr": 9e-3, "windows": "brain", "image_px": 64}),
]
SHARES = {
    "fanova": ({"lr": 0.8, "windows": 0.2}, {"lr": 0.3, "windows": 0.4}),
    "ped_anova": ({"lr": 0.7, "momentum": 0.3}, {"lr": 0.1, "momentum": 0.4}),
}


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


FIGURES = {
    "curves": lambda: plots.learning_curves(CURVES, 0.29),
    "one curve": lambda: plots.learning_curves([Curve("finished", [(1, 0.3)])], None),
    "best": lambda: plots.best_so_far(SPENT, 0.29),
    "windows": lambda: plots.window_strip(GROUPS, None),
    "slices": lambda: plots.slices("one", AXES, POINTS, "score"),
    "one slice": lambda: plots.slices("one", AXES[:1], POINTS[:2], "score"),
    "alike": lambda: plots.slices("one", AXES, [POINTS[0]] * 2, "score"),
    "parallel": lambda: plots.parallel_coordinates("one", AXES, POINTS, "score"),
    "one parallel": lambda: plots.parallel_coordinates("one", AXES[:1], POINTS[:1], "score"),
    "importance": lambda: plots.importance_bars("one", SHARES),
    "one bar": lambda: plots.importance_bars("one", {"fanova": ({"lr": 1.0}, {"lr": 1.0})}),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_every_figure_is_one_well_formed_svg_with_named_axes_and_the_same_each_time(draw):
    svg = draw()
    assert svg.startswith("<svg ")
    assert [text for text in texts(svg) if text and len(text) > 1]
    assert draw() == svg


def test_each_way_of_ending_is_in_the_legend_once():
    shown = texts(plots.learning_curves(CURVES, 0.29))
    for status in ("finished", "failed", "other", "stopped"):
        assert shown.count(status) == 1
    assert "interrupted" not in shown  # it has no epoch to draw


def test_scores_at_rungs_are_drawn_where_there_are_any_filled_or_open():
    shown = texts(plots.learning_curves(CURVES, None))
    assert {"rung: went on", "rung: stopped there"} <= set(shown)
    assert not [text for text in texts(plots.learning_curves(CURVES[1:3], None)) if text and "rung" in text]
    assert "rung: stopped there" not in texts(plots.learning_curves(CURVES[:1], None))


def test_a_branch_is_a_dashed_line_from_the_curve_to_its_score():
    def n_dashed(rungs):
        return plots.learning_curves([Curve("finished", [(1, 0.3), (2, 0.2)], rungs)], None).count("stroke-dasharray")

    assert n_dashed([Rung(1, 0.25, 0.5, False)]) == n_dashed([]) + 1
    assert n_dashed([Rung(1, 0.25, 0.0, False)]) == n_dashed([])  # judged as it was
    assert n_dashed([Rung(3, 0.25, 0.5, False)]) == n_dashed([])  # the curve has no such epoch


def test_one_diverged_trial_does_not_flatten_the_others():
    assert "8" in texts(plots.learning_curves(CURVES, None))
    assert "8" not in texts(plots.learning_curves(CURVES, 0.29))
    assert plots.value_range([0.1, 0.2, 0.21, 9.0]) == (0.1, pytest.approx(0.205 + 3 * 0.105))
    assert plots.value_range([0.1, 0.2, 0.3]) == (0.1, 0.3)


@pytest.mark.parametrize("values", [[0.2], [0.2, 0.2], [0.0], [0.1, 0.1, 9.0]])
def test_values_that_are_alike_have_a_range(values):
    low, high = plots.value_range(values)
    assert low < high


def test_every_search_and_every_window_set_is_named():
    assert {"one", "two"} <= set(texts(plots.best_so_far(SPENT, None)))
    assert {"brain", "40/80+80/200"} <= set(texts(plots.window_strip(GROUPS, None)))


def test_a_panel_a_parameter_with_its_options_or_its_scale():
    shown = texts(plots.slices("one", AXES, POINTS, "score at the rung of epoch 1"))
    assert {"lr", "windows", "momentum", "image_px", "score at the rung of epoch 1"} <= set(shown)
    assert {"brain", "bone", "0.001", "128"} <= set(shown)
    assert {"finished", "stopped", "failed"} <= set(shown)


def test_the_first_of_the_leaderboard_are_lifted_out_and_what_is_not_there_is_shown():
    shown = texts(plots.parallel_coordinates("one", AXES, POINTS, "score"))
    assert {"first 3 of the leaderboard", "other trials", "not there", "score"} <= set(shown)
    everywhere = texts(plots.parallel_coordinates("one", AXES[:2], POINTS[:2], "score"))
    assert "not there" not in everywhere
    assert "first 2 of the leaderboard" in everywhere


def test_bars_show_every_method_and_what_chance_gives():
    shown = texts(plots.importance_bars("one", SHARES))
    assert {"fanova", "ped_anova", "by chance", "lr", "windows", "momentum"} <= set(shown)
    assert shown.index("lr") < shown.index("windows") < shown.index("momentum")


def test_of_many_trials_the_first_and_the_last_are_drawn_and_some_between():
    drawn = plots.thinned(range(1000))
    assert len(drawn) == plots.MAX_DRAWN
    assert drawn[: plots.MOST_BEST] == list(range(plots.MOST_BEST))
    assert drawn[-1] == 999
    assert drawn == sorted(set(drawn))
    assert plots.thinned(range(5)) == [0, 1, 2, 3, 4]
