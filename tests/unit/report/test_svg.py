import matplotlib
import pytest

from ichtune.report.svg import BLUE, CSS_OF, INK, draw_panels, draw_svg


def line(axes):
    axes.plot([0, 1], [0, 1], color=BLUE)
    axes.plot([1, 0], [0, 1], "o", color=INK)
    axes.set_xlabel("loss < 1 & more")


def test_the_same_drawing_gives_the_same_text_whatever_the_reader_has_set():
    first = draw_svg("a", "a line", line)
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "lines.linewidth": 9}):
        assert draw_svg("a", "a line", line) == first


def test_settings_are_left_as_they_were():
    with matplotlib.rc_context({"font.size": 31}):
        draw_svg("a", "a line", line)
        assert matplotlib.rcParams["font.size"] == 31


def test_colours_come_from_the_page():
    text = draw_svg("a", "a line", line)
    assert not [stand_in for stand_in in CSS_OF if stand_in in text]
    assert "var(--blue)" in text
    assert "currentColor" in text


def test_ids_of_two_figures_differ():
    first, second = (draw_svg(name, "a line", line) for name in ("a", "b"))
    ids = [set(part.split('"')[0] for part in text.split(' id="')[1:]) for text in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("unwanted", ["<?xml", "<!DOCTYPE", "<metadata", "<style", "http://matplotlib"])
def test_only_the_drawing_is_kept(unwanted):
    assert unwanted not in draw_svg("a", "a line", line)


def test_text_is_text_and_escaped():
    text = draw_svg("a", 'said "so" & <more>', line)
    assert "loss &lt; 1 &amp; more" in text
    assert 'aria-label="said &quot;so&quot; &amp; &lt;more&gt;"' in text


def test_it_scales_down_but_never_up():
    head = draw_svg("a", "a line", line, width_in=5.0).split(">")[0]
    assert "max-width: 480px" in head
    assert 'viewBox="0 0 360 ' in head
    assert " width=" not in head
    assert " height=" not in head


def test_a_figure_can_have_several_panels():
    def two(figure):
        for place, label in enumerate(("left", "right"), start=1):
            figure.add_subplot(1, 2, place).set_xlabel(label)

    text = draw_panels("two", "two panels", two, 5.0, 2.0)
    assert ">left<" in text
    assert ">right<" in text
    assert text == draw_panels("two", "two panels", two, 5.0, 2.0)
