from io import StringIO

import pytest
from rich.console import Console

from ichtune.cli.live_table import Heading, TrialRow, first_rows, live_table, value_text, varied_parameters
from ichtune.recipe import Recipe
from ichtune.search.ledger import STOPPED, TrialRecord
from ichtune.search.telemetry import TrialEvent

#: A search over more than a narrow terminal can show, with names longer than a column.
PARAMETERS = {
    "architecture": ["resnet18", "tf_efficientnet_b3.ns_jft_in1k"],
    "windows": ["brain", [[40, 80], [80, 200], [600, 2800]]],
    "lr": [1e-3, 3.1622e-4],
    "weight_decay": [0.01, 0.1],
    "image_px": [256, 384],
    "momentum": [None, 0.9],
    "anneal_start": [0.3, 0.8],
    "epochs": [6, 6],
}


def event(trial, kind="epoch", loss=0.2, **figures):
    return TrialEvent(kind, trial, "net", 3, 6, loss, **figures)


def row(trial, state="running", loss=0.2, **figures):
    return TrialRow(trial, state, 3, 6, loss, **figures)


@pytest.fixture
def rows():
    made = []
    for trial in range(30):
        parameters = {name: values[trial % 2] for name, values in PARAMETERS.items()}
        shown = TrialRow(trial)
        shown.take(
            event(
                trial,
                loss=0.1 + trial / 100,
                rung=1,
                rung_loss=0.15,
                seconds=12.5,
                parameters=parameters,
                resources={"gpu": 0.25, "cpu": 2.0},
            )
        )
        if trial > 4:
            shown.take(event(trial, "stopped", 0.1 + trial / 100, parameters=parameters))
        made.append(shown)
    return made


def drawn(rows, width=80, height=24, heading=None):
    console = Console(file=StringIO(), width=width, height=height)
    console.print(live_table(rows, heading or Heading(60, 754.0, 3724.0, (0.1, 0)), width, height))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height", "n_running"), [(40, 12, 4), (80, 24, 5), (120, 30, 5), (200, 50, 5)])
def test_it_fits_the_terminal_one_line_a_trial(rows, width, height, n_running):
    lines = drawn(rows, width, height)

    assert max(map(len, lines)) <= width
    assert len(lines) < height
    (header,) = [number for number, line in enumerate(lines) if line.startswith("trial ")]
    trials = [int(line.split()[0]) for line in lines[header + 1 :] if line.split()[0].isdigit()]
    assert trials == [*range(n_running), *range(5, 5 + len(trials) - n_running)]


@pytest.mark.parametrize(
    ("width", "names", "missing"),
    [
        (80, ["lr", "weight_…"], "image_px, momentum, anneal_start"),
        (120, ["momentum", "anneal_…"], ""),
        (200, ["tf_efficientnet_b3.ns_j…", "[[40,80],[80,200],[600,…", "anneal_start"], ""),
    ],
)
def test_parameters_are_shown_as_far_as_there_is_room_and_the_others_are_named(rows, width, names, missing):
    lines = drawn(rows, width)

    shown = "\n".join(lines)
    for name in names:
        assert name in shown
    assert ("no room for " + missing in shown) is bool(missing)


def test_only_parameters_that_vary_are_shown(rows):
    assert varied_parameters(rows) == [name for name in PARAMETERS if name != "epochs"]
    assert varied_parameters([row(0, parameters={"lr": 0.1})]) == []
    assert varied_parameters([row(0, parameters={"lr": 0.1}), row(1, parameters={"momentum": 0.9})]) == [
        "lr",
        "momentum",
    ]


def test_the_heading_says_what_is_known_of_the_search_as_a_whole(rows):
    lines = drawn(rows)

    assert lines[0] == "25 of 60 trials ended: 25 stopped"
    assert lines[1] == "best loss 0.1000 (trial 0), 5 running with 0.25 GPU + 2 CPU each"
    assert lines[2] == "12 min 34 s so far, about 1 h 2 min left"


def test_what_nobody_knows_is_left_out():
    lines = drawn([], heading=Heading(None, 3.0))

    assert lines[:3] == ["0 trials ended", "no loss yet, 0 running", "3 s so far"]


def test_resources_and_nodes_get_columns_where_they_differ():
    rows = [row(0, resources={"cpu": 1.0}, node="a"), row(1, resources={"gpu": 0.5, "cpu": 1.0}, node="b")]

    shown = "\n".join(drawn(rows))

    assert "0.5 GPU + 1 CPU" in shown
    assert "node" in shown
    assert "each" not in shown


def test_those_that_run_come_first_then_the_best_then_those_without_a_loss():
    rows = [
        row(0, "failed", None),
        row(1, "stopped", 0.3),
        row(2, "finished", 0.1),
        row(3),
        row(4, "failed", float("nan")),
    ]

    assert [r.trial for r in first_rows(rows, 9)] == [3, 2, 1, 0, 4]


def test_a_third_of_the_rows_is_for_the_best_however_many_run():
    rows = [*(row(n) for n in range(50)), *(row(n, "finished", n / 100) for n in range(50, 60))]

    assert [r.trial for r in first_rows(rows, 9)] == [0, 1, 2, 3, 4, 5, 50, 51, 52]
    assert [r.trial for r in first_rows(rows[50:], 9)] == list(range(50, 59))


def test_a_trial_takes_in_what_happens_to_it():
    shown = TrialRow(0)
    shown.take(event(0, "start", None, parameters={"lr": 0.1}, resources={"cpu": 1.0}))
    assert (shown.state, shown.loss, shown.parameters) == ("running", None, {"lr": 0.1})

    shown.take(event(0, rung=0, rung_loss=0.15, seconds=2.0))
    shown.take(event(0, loss=0.1, seconds=4.0))
    assert (shown.loss, shown.rung, shown.seconds) == (0.1, (0, 0.15), [2.0, 4.0])
    assert shown.parameters == {"lr": 0.1}

    shown.take(event(0, "stopped", None))
    assert (shown.state, shown.loss) == ("stopped", 0.1)


def test_a_trial_of_an_earlier_run_is_shown_too():
    curve = [
        {"epoch": 1, "val_weighted_log_loss": 0.3, "rung": 1, "rung_loss": 0.25},
        {"epoch": 2, "val_weighted_log_loss": 0.2},
    ]
    record = TrialRecord(7, {"lr": 0.1}, {}, Recipe(epochs=4), STOPPED, "", curve)

    shown = TrialRow.of_record(record)

    assert (shown.trial, shown.state, shown.epoch, shown.epochs) == (7, STOPPED, 2, 4)
    assert (shown.loss, shown.rung, shown.parameters) == (0.2, (0, 0.25), {"lr": 0.1})


def test_the_last_failure_says_why(rows):
    rows[7].take(event(7, "failed", None, reason="diverged: the loss is nan [see error.txt]"))

    assert drawn(rows)[-1] == "trial 7 failed: diverged: the loss is nan [see error.txt]"


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (None, "-"), (256, "256"), (1e-4, "0.0001"), ("brain", "brain"), ([1.0], "[1.0]")],
)
def test_values_are_short(value, text):
    assert value_text(value) == text
