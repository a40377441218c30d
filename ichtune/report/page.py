"""The report: one HTML file that needs no network and no script, the same bytes for the same workspace."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ichtune.errors import StorageError
from ichtune.labels import LABELS
from ichtune.report import plots, search_plots
from ichtune.report.blend_facts import LadderRow
from ichtune.report.facts import Facts, collect_facts
from ichtune.report.identities import identities_of
from ichtune.report.search_facts import SearchDetail, SearchFacts, by_window_set, spent_and_best
from ichtune.search.importance import IMPORTANCES
from ichtune.windows import WINDOW_SETS
from ichtune.workspace import Workspace

TEMPLATE = "report.html.j2"
#: Single runs in the dot plot of the ladder; the table has them all.
MAX_SINGLES = 8
#: Searches whose parameters are drawn; the table has the trials of them all.
MAX_DETAILS = 4
PICTURE_WINDOWS = ("brain", "subdural", "bone")


@dataclass(frozen=True)
class ReportResult:
    """What was written: the file, its size, and a sentence for each section that cannot be filled yet."""

    path: Path
    n_bytes: int
    missing: dict[str, str]


def write_report(workspace: Workspace, out: Path | None = None) -> ReportResult:
    """Write the HTML report of a workspace, whole or not at all.

    Args:
        workspace: prepared; search, runs and blend may be absent.
        out: the file; None writes the workspace's ``report.html``.

    Raises:
        DataError: nothing was prepared here, or a file of the workspace is damaged.
        StorageError: the file cannot be written.
    """
    path = out or workspace.layout.report
    facts = collect_facts(workspace)
    content = render_page(facts, workspace).encode("utf-8")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror or error}; name another with --out") from error
    return ReportResult(path, len(content), facts.missing)


def render_page(facts: Facts, workspace: Workspace) -> str:
    """Return the page as HTML; every value is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        loss=format_loss,
        count=format_count,
        percent=format_percent,
        duration=format_duration,
        breakable=breakable,
        public=identities_of(workspace).hide,
    )
    page = environment.get_template(TEMPLATE).render(
        facts=facts,
        labels=LABELS,
        figures=draw_figures(facts),
        max_details=MAX_DETAILS,
        most_drawn=search_plots.MAX_DRAWN,
        most_parameters=search_plots.MAX_PARAMETERS,
        meanings={name: method.meaning for name, method in IMPORTANCES.items()},
    )
    return "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n"


def draw_figures(facts: Facts) -> dict[str, Any]:
    """Draw every figure that the facts allow, by name; absent ones are left out."""
    figures: dict[str, Any] = {}
    if facts.ladder:
        figures["ladder"] = plots.ladder_plot([_dot(row) for row in plotted_rungs(facts.ladder)])
    if facts.blend and facts.blend.reliability:
        figures["reliability"] = plots.reliability_plot(facts.blend.reliability)
    if facts.search:
        figures |= _search_figures(facts.search, facts.data.prior_loss)
    if facts.data.per_series:
        figures["series"] = plots.slices_per_series(facts.data.per_series)
    if facts.data.rates:
        by_fold = {row.fold: row.rates for row in facts.data.folds if row.rates}
        figures["rates"] = plots.label_rates(facts.data.rates, by_fold)
    drawn: dict[str, Any] = {name: Markup(svg) for name, svg in figures.items()}
    drawn["pictures"] = [
        {
            "image_id": one.image_id,
            "labels": one.labels,
            "windows": {name: plots.picture(one.hu_HW, WINDOW_SETS[name][0]) for name in PICTURE_WINDOWS},
        }
        for one in facts.data.slices
    ]
    return drawn


def _search_figures(search: SearchFacts, prior_loss: float | None) -> dict[str, str]:
    figures = {}
    curves = search_plots.thinned([row.curve for row in search.rows if row.curve.points])
    if curves:
        figures["curves"] = search_plots.learning_curves(curves, prior_loss)
    spent = spent_and_best(search.rows)
    if spent:
        figures["best"] = search_plots.best_so_far(spent, prior_loss)
    groups = by_window_set(search.rows)
    if len(groups) > 1:
        figures["windows"] = search_plots.window_strip(groups, prior_loss)
    for detail in search.details[:MAX_DETAILS]:
        figures |= _detail_figures(detail)
    return figures


def _detail_figures(detail: SearchDetail) -> dict[str, str]:
    """Figures of one search's parameters, each under its kind and the search's name."""
    figures = {}
    shares = {one.method: (one.shares, one.chance) for one in detail.importances if one.shares}
    if shares:
        figures[f"importance {detail.name}"] = search_plots.importance_bars(detail.name, shares)
    axes = detail.axes[: search_plots.MAX_PARAMETERS]
    ranked = sorted(detail.points, key=lambda point: point.rank)
    if axes and len(ranked) > 1:
        points = search_plots.thinned(ranked)
        figures[f"slices {detail.name}"] = search_plots.slices(detail.name, axes, points, detail.what)
        figures[f"parallel {detail.name}"] = search_plots.parallel_coordinates(detail.name, axes, points, detail.what)
    return figures


def plotted_rungs(ladder: tuple[LadderRow, ...]) -> list[LadderRow]:
    """Return the rungs to plot: all but singles beyond the best ``MAX_SINGLES``, in the ladder's order."""
    singles = [row for row in ladder if row.is_single]
    best = sorted(singles, key=lambda row: (row.oof_loss is None, row.oof_loss or 0.0))[:MAX_SINGLES]
    return [row for row in ladder if not row.is_single or row in best]


def _dot(row: LadderRow) -> dict[str, Any]:
    """The rung with a title short enough for an axis: a run is called by its recipe_id."""
    return {**vars(row), "title": f"run {row.recipe_id}" if row.is_single and row.recipe_id else row.title}


def breakable(text: str) -> Markup:
    """Let a recipe's line break after each of its parts."""
    *parts, last = str(text).split("|")
    spans = [Markup('<span class="part">{}</span>').format(part) for part in (*(f"{p}|" for p in parts), last)]
    return Markup("<wbr>").join(spans)


def format_loss(value: float | None) -> str:
    """Four decimals; a dash where there is no figure."""
    return "–" if value is None else f"{value:.4f}"


def format_count(value: float | None) -> str:
    """A whole number in groups of three digits."""
    return "–" if value is None else f"{value:,.0f}"


def format_percent(value: float | None) -> str:
    """A share as per cent."""
    return "–" if value is None else f"{100 * value:.1f} %"


def format_duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    return f"{minutes} min {rest_s:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
