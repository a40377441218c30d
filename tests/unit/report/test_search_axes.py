import json

import pytest

from ichtune.report.search_axes import MAX_LABEL, Axis, read_axes, short_label


def written(name, **attributes):
    return json.dumps({"name": name, "attributes": attributes})


DISTRIBUTIONS = {
    "lr": written("FloatDistribution", low=1e-4, high=1e-2, log=True, step=None),
    "image_px": written("IntDistribution", low=64, high=256, log=False, step=64),
    "windows": written("CategoricalDistribution", choices=["brain", "bone"]),
    "pooling": written("CategoricalDistribution", choices=["max", "gem"]),
}


def test_axes_are_read_as_optuna_writes_them_and_constants_are_left_out():
    params = [
        {"lr": 1e-3, "image_px": 64, "windows": "brain", "pooling": "max"},
        {"lr": 2e-3, "image_px": 128, "windows": "bone", "pooling": "max"},
    ]
    assert read_axes([DISTRIBUTIONS] * 2, params) == (
        Axis("lr", 1e-4, 1e-2, log=True),
        Axis("image_px", 64.0, 256.0, step=64.0),
        Axis("windows", 0.0, 1.0, options=("brain", "bone")),
    )
    assert read_axes([], []) == ()


def test_a_parameter_that_only_some_trials_have_is_an_axis():
    lr = {"lr": DISTRIBUTIONS["lr"]}
    assert [axis.name for axis in read_axes([{}, lr, lr], [{}, {"lr": 1e-3}, {"lr": 2e-3}])] == ["lr"]


@pytest.mark.parametrize(
    ("axis", "value", "number", "share"),
    [
        (Axis("lr", 1e-4, 1e-2, log=True), 1e-3, 1e-3, 0.5),
        (Axis("flip", 0.0, 2.0), 0.5, 0.5, 0.25),
        (Axis("flip", 0.0, 2.0), 9.0, 9.0, 1.0),
        (Axis("flip", 0.0, 2.0), None, None, None),
        (Axis("flip", 0.0, 2.0), float("nan"), None, None),
        (Axis("flip", 0.0, 2.0), True, None, None),
        (Axis("windows", 0.0, 2.0, options=("a", "b", "c")), "b", 1.0, 0.5),
        (Axis("windows", 0.0, 2.0, options=("a", "b", "c")), "other", None, None),
        (Axis("windows", 0.0, 0.0, options=("a",)), "a", 0.0, 0.5),
    ],
)
def test_where_a_value_lies(axis, value, number, share):
    assert axis.number(value) == number
    assert axis.share(value) == (None if share is None else pytest.approx(share))


def test_dots_on_a_short_grid_are_spread_out_but_never_to_the_next_value():
    assert Axis("image_px", 64.0, 256.0, step=64.0).grid == [64.0, 128.0, 192.0, 256.0]
    assert 0 < Axis("image_px", 64.0, 256.0, step=64.0).spread < 64 / 2
    for plain in (Axis("lr", 1e-4, 1e-2, log=True), Axis("epochs", 1.0, 99.0, step=1.0), Axis("flip", 0.0, 1.0)):
        assert (plain.spread, plain.grid) == (0.0, [])
    assert Axis("windows", 0.0, 1.0, options=("a", "b")).spread == 0.5
    assert Axis("windows", 0.0, 1.0, options=("a", "b")).grid == []


def test_ticks_are_both_ends_or_every_option():
    assert Axis("lr", 1e-4, 1e-2, log=True).ticks == [(0.0, "0.0001"), (1.0, "0.01")]
    assert Axis("windows", 0.0, 2.0, options=("a", "b", "c")).ticks == [(0.0, "a"), (0.5, "b"), (1.0, "c")]
    assert Axis("windows", 0.0, 0.0, options=("a",)).ticks == [(0.5, "a")]


def test_long_labels_of_one_family_still_differ():
    short = short_label("brain_subdural_soft", 14), short_label("brain_subdural_bone", 14)
    assert short == ("brain_…al_soft", "brain_…al_bone")
    assert short_label("x" * MAX_LABEL) == "x" * MAX_LABEL
    assert len(short_label("x" * 99)) == MAX_LABEL
