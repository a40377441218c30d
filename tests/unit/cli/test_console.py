"""Results to stdout, notes and progress to stderr, nothing but plain text where there is no terminal."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table

from ichtune.cli import console


def test_results_and_notes_go_their_own_ways(capsys: pytest.CaptureFixture[str]) -> None:
    console.result("a [40, 80] result")
    console.note("a note")
    console.note("not said", quiet=True)
    assert capsys.readouterr() == ("a [40, 80] result\n", "a note\n")


def test_a_table_is_plain_text_and_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("trial", "recipe")
    table.add_row("1", "x" * 150)
    console.result(table)
    shown = capsys.readouterr().out
    assert "x" * 150 in shown
    assert "\x1b" not in shown


def test_json_is_always_valid(capsys: pytest.CaptureFixture[str]) -> None:
    console.result_json(
        {
            "nan": float("nan"),
            "inf": np.float32("inf"),
            "array": np.arange(2),
            "path": Path("a"),
            "text": "ö",
            1: (2, None),
        }
    )
    shown = capsys.readouterr().out
    expected = {"nan": None, "inf": None, "array": [0, 1], "path": "a", "text": "ö", "1": [2, None]}
    assert json.loads(shown, parse_constant=pytest.fail) == expected


def test_progress_without_a_terminal_is_a_last_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("reading", unit="slices") as bar:
        for done in range(5):
            bar.update(done, 4, "refused 1")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("reading: 4/4 slices, ")
    assert captured.err.endswith("/s, refused 1\n")
    assert captured.err.count("\n") == 1


def test_progress_without_a_terminal_speaks_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = iter(range(0, 1000, 2))
    monkeypatch.setattr("ichtune.cli.console.time.monotonic", lambda: float(next(now_s)))
    with console.progress("reading") as bar:
        for done in range(20):
            bar.update(done, 20)
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 12


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("reading", quiet=True) as bar:
        bar.update(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with console.progress("reading [all]", unit="slices") as bar:
        bar.update(3, 4, "refused 1")
    shown = capsys.readouterr().err
    assert "reading [all]" in shown
    assert "3/4" in shown
    assert "refused 1" in shown


@pytest.mark.parametrize(
    ("done", "total", "line"),
    [
        (40, 100, "reading: 40/100 slices, 20/s, 3 s left, x"),
        (100, 100, "reading: 100/100 slices, 50/s, x"),
        (40, None, "reading: 40 slices, 20/s, x"),
        (0, 100, "reading: 0/100 slices, x"),
        (4_000, 752_803, "reading: 4,000/752,803 slices, 2,000/s, 6 min 14 s left, x"),
    ],
)
def test_plain_line(done: float, total: float | None, line: str) -> None:
    assert console.plain_line("reading", "slices", done, total, "x", elapsed_s=2.0) == line


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert console.duration(seconds) == said
