import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from ichtune.errors import DataError, StorageError
from ichtune.labels import LABELS
from ichtune.report import page
from ichtune.report.blend_facts import LadderRow
from ichtune.report.facts import collect_facts
from ichtune.report.page import (
    breakable,
    format_duration,
    format_loss,
    plotted_rungs,
    render_page,
    write_report,
)
from ichtune.search.importance import Importances
from ichtune.tables import SLICES, write_json, write_table
from ichtune.workspace import Workspace

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn

VOID = {"meta", "img", "br", "wbr", "link", "input"}


class Balance(HTMLParser):
    """Checks that every element is closed in turn, and collects addresses and ids."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.addresses, self.ids = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "data", "action")]
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
        self.ids += [v for k, v in attrs if k == "id"]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def parsed(text):
    balance = Balance()
    balance.feed(text)
    return balance


def report_text(workspace):
    return write_report(workspace).path.read_text(encoding="utf-8")


RENDERED = []  # the full page takes a second: tests that only read it share one


@pytest.fixture
def full_page(request):
    """Return the made workspace and the text of its report."""
    if not RENDERED:
        made = request.getfixturevalue("full_workspace")
        RENDERED.extend([made, report_text(made.open())])
    return tuple(RENDERED)


@pytest.fixture
def full_text(full_page):
    return full_page[1]


def test_it_is_well_formed_and_ids_are_unique(full_text):
    balance = parsed(full_text)
    assert balance.wrong == []
    assert balance.open == []
    assert len(balance.ids) == len(set(balance.ids))


def test_it_needs_no_network_and_no_script(full_text):
    balance = parsed(full_text)
    outside = [a for a in balance.addresses if not a.startswith(("#", "data:image/png;base64,"))]
    assert outside == []
    assert "<script" not in full_text
    assert "@import" not in full_text
    assert re.findall(r"url\((?!#)", full_text) == []
    linked = {a[1:] for a in balance.addresses if a.startswith("#")}
    assert linked <= set(balance.ids)


def test_the_same_workspace_gives_the_same_bytes(full_page, tmp_path):
    made, text = full_page
    again = write_report(made.open(), tmp_path / "again.html").path
    assert again.read_bytes() == text.encode("utf-8")


def test_every_section_is_filled_in_order(full_text):
    titles = re.findall(r"<h2[^>]*>([^<]*)", full_text)
    assert titles == ["Score ladder", "Blend", "Search", "Runs", "Data", "How it was made"]
    assert full_text.count("<svg") == 9
    assert full_text.count("<img") == 12
    assert "Generated data (phantom)" in full_text
    assert 'class="absent"' in full_text  # the run that is not trained on every fold
    for label in LABELS:
        assert f">{label}<" in full_text


def test_the_search_says_what_stopping_saved_and_why_there_are_no_importances_yet(full_text):
    section = full_text[full_text.index('id="search"') : full_text.index('id="runs"')]
    assert "1 trial was stopped early. Trained to the end it would have cost 2 epochs more" in section
    assert "No importances yet: 2 trials have a score at the rung of epoch 2" in section
    assert "Score at the rung of epoch 2 against each parameter, 2 trials" in section
    assert "<th>spared epochs</th>" in section


def test_importances_are_drawn_with_what_they_rest_on(full_page):
    facts = collect_facts(full_page[0].open())
    found = Importances("fanova", {"lr": 0.9, "windows": 0.1}, {"lr": 0.3, "windows": 0.4}, 24, "loss at the end")
    details = [replace(d, importances=(found,), name="<b>") for d in facts.search.details]
    text = render_page(replace(facts, search=replace(facts.search, details=(details[0],))), full_page[0].open())
    assert "24 trials by their loss at the end" in text
    assert "Told from chance: lr (fanova)." in text
    assert "search &lt;b&gt;" in text
    assert "<b>" not in text[text.index('id="search"') : text.index('id="runs"')]


def test_the_headline_says_the_loss_and_both_intervals(full_page):
    made, full_text = full_page
    row = json.loads((made.root / "ladder.json").read_text(encoding="utf-8"))[-1]
    head = full_text[: full_text.index("<h2")]
    for key in ("crossfit_loss", "crossfit_low", "crossfit_high", "expected_test_low", "expected_test_high"):
        assert format_loss(row[key]) in head
    assert "12 patients" in head
    assert "Measured on the test set" not in head


@pytest.mark.parametrize(("test_loss", "verdict"), [(0.2, "inside the expected"), (5.0, "outside the expected")])
def test_the_test_loss_is_judged_by_what_was_expected(make_blend_workspace, test_loss, verdict):
    workspace = make_blend_workspace(noises=()).open()
    rung = {"name": "blend", "oof_loss": 0.2, "crossfit_loss": 0.2, "test_loss": test_loss}
    write_json([{**rung, "expected_test_low": 0.1, "expected_test_high": 0.3}], workspace.layout.ladder)
    text = report_text(workspace)
    head = text[: text.index("<h2")]
    assert verdict in head
    assert format_loss(test_loss) in head


def test_post_processing_says_what_was_applied_to_what(full_page):
    facts = collect_facts(full_page[0].open())
    section = full_page[1][full_page[1].index('id="blend"') : full_page[1].index('id="search"')]
    assert "Post-processing: log loss that each step takes off a label" in section
    for step in facts.blend.steps:
        row = re.search(rf'<tr><td class="t">{step.title}</td>(.*)</tr>', section)[1]
        cells = [
            "–"
            if gain is None
            else f"{gain.n_patients} patients"
            if not gain.is_judged
            else f"<strong>{gain.gain:+.4f}</strong>"
            if gain.applied
            else f"{gain.gain:+.4f}"
            for gain in step.gains
        ]
        assert re.findall(r"<td>(.*?)</td>", row) == cells


def test_values_are_escaped_and_identities_are_hidden(full_page):
    made, full_text = full_page
    assert "diverged &lt;b&gt;on&lt;/b&gt; [hidden] of patient [hidden]" in full_text
    for patient in made.slices["patient_id"].unique():
        assert not re.search(rf"\b{patient}\b", full_text)
    assert not re.search(r"\b[0-2](\.\d+){5,}\b", full_text)


def test_a_folder_whose_name_is_markup_is_escaped(make_blend_workspace):
    made = make_blend_workspace(noises=())
    moved = made.root.rename(made.root.with_name("<b>&work"))
    text = report_text(Workspace(moved))
    assert "<b>&work" not in text
    assert "&lt;b&gt;&amp;work" in text


def test_a_bare_workspace_says_what_to_run(make_blend_workspace):
    made = make_blend_workspace(noises=())
    result = write_report(made.open())
    text = result.path.read_text(encoding="utf-8")
    assert parsed(text).wrong == []
    for command in ("ichtune blend", "ichtune train", "ichtune search --space windows.yaml"):
        assert f"<code>{command}</code>" in text
    assert "To beat: " in text
    assert "no pictures: " in text
    assert set(result.missing) == {"ladder", "blend", "search", "runs"}


def test_a_workspace_without_labels_has_a_report(make_blend_workspace):
    made = make_blend_workspace(noises=())
    made.slices[list(LABELS)] = np.nan
    write_table(made.slices.assign(is_labelled=False), made.root / "slices.parquet", SLICES)
    text = report_text(made.open())
    assert "no labels: " in text
    assert "To beat" not in text


def test_real_data_has_no_banner(make_blend_workspace):
    made = make_blend_workspace(noises=())
    path = made.root / "workspace.json"
    write_json({**json.loads(path.read_text(encoding="utf-8")), "generated": False}, path)
    text = report_text(made.open())
    assert 'class="banner"' not in text
    assert "generated data" not in text.lower()


def test_a_failed_write_leaves_the_old_report(make_blend_workspace, monkeypatch):
    workspace = make_blend_workspace(noises=()).open()
    path = workspace.layout.report
    path.write_text("old", encoding="utf-8")

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page.os, "replace", fail)
    with pytest.raises(StorageError, match="No space left"):
        write_report(workspace)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(path.parent.glob(".report*")) == []


def test_a_damaged_file_is_named(make_blend_workspace):
    made = make_blend_workspace(noises=())
    (made.root / "ladder.json").write_text("[", encoding="utf-8")
    with pytest.raises(DataError, match=r"ladder\.json"):
        write_report(made.open())


def test_figures_are_left_out_where_there_is_nothing_to_draw(make_blend_workspace):
    figures = page.draw_figures(collect_facts(make_blend_workspace(noises=()).open()))
    assert set(figures) == {"series", "rates", "pictures"}


def test_the_plot_of_the_ladder_keeps_the_best_singles():
    def rung(name, loss):
        return LadderRow(name, name, loss, loss, None, None, None, None, None, "")

    rungs = (
        rung("prior", 0.3),
        *(rung(f"single:{n}", 0.1 + n / 100) for n in range(20, 0, -1)),
        rung("blend", 0.1),
    )
    kept = [row.name for row in plotted_rungs(rungs)]
    assert kept == ["prior", *(f"single:{n}" for n in range(8, 0, -1)), "blend"]


@pytest.mark.parametrize(("seconds", "text"), [(None, "–"), (8.4, "8 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_a_recipe_may_break_between_its_parts_and_is_escaped():
    assert breakable("a|<b>") == '<span class="part">a|</span><wbr><span class="part">&lt;b&gt;</span>'
