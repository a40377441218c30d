from dataclasses import replace

import pytest
from rich.console import Console

from ichtune.cli.inspect_view import MAX_ROWS, card_tables
from ichtune.labels import LABELS
from ichtune.report.data_card import collect_card


@pytest.fixture(scope="module")
def card(session_workspace):
    return collect_card(session_workspace)


def printed(card) -> str:
    console = Console(width=200, highlight=False, markup=False)
    with console.capture() as capture:
        for table in card_tables(card, "work"):
            console.print(table)
    return capture.get()


def test_everything_on_the_card_is_in_the_terminal(card):
    text = printed(card)
    lines = [line.split() for line in text.splitlines()]
    assert text.startswith("Data card of work (generated data)\n")
    assert ["usable", "slices", str(card.counts["usable_slices"])] in lines
    assert ["plain", str(card.counts["usable_slices"]), "0"] in lines
    assert ["truncated_pixel_data", "1", card.refused[1]["example"]] in lines
    for label in LABELS:
        slices = card.labels[label]["slices"]
        assert f"{slices['positive']:,} of {slices['of']:,}" in text
        assert [label, *(str(card.co_occurrence[label][other]) for other in LABELS)] in lines
    for fold in card.folds:
        rates = [f"{100 * fold['rates'][label]:.2f}" for label in LABELS]
        assert any(line[-6:] == rates for line in lines)


def test_without_labels_and_refusals_it_says_none_and_shows_no_rates(card):
    text = printed(replace(card, labels={}, folds=[], refused=[], is_generated=False))
    assert "generated" not in text
    assert "Positive" not in text
    assert "Refused files and duplicates\nreason  files  example\nnone" in text


def test_a_long_list_says_how_many_it_leaves_out(card):
    text = printed(replace(card, matrices={f"{n} x 512": 1 for n in range(MAX_ROWS + 5)}))
    assert f"Matrices (the first {MAX_ROWS} of {MAX_ROWS + 5}; --json has all)" in text
    assert f"{MAX_ROWS - 1} x 512" in text
    assert f"{MAX_ROWS} x 512" not in text
