"""``ichtune stack``: models of the second level, which learn along the series from the runs that are there."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ichtune.cli.options import DEFAULT_PLACE, JsonOption, PlaceOption, QuietOption, work_argument
from ichtune.errors import ConfigError

if TYPE_CHECKING:
    from ichtune.second_level.comparison import Comparison
    from ichtune.second_level.metadata import MetadataLosses
    from ichtune.second_level.stacking_runs import Begun, StackedRun
    from ichtune.second_level_recipe import SecondLevelRecipe
    from ichtune.workspace import Workspace

#: What is trained where no recipe is named and nothing was searched: one model of each kind.
DEFAULT_RECIPES = ("level2_gru", "level2_trees", "level2_smoothing")


def stack(
    work: PlaceOption = DEFAULT_PLACE,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="How many distinct winners to train; the search's own by default."),
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", help="Only winners of this search, which is of the second level.")
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe",
            help="Train this recipe of the second level instead: a YAML file or a shipped one's name. May be given "
            "several times.",
            show_default="the winners of finished searches; without any, " + ", ".join(DEFAULT_RECIPES),
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train models that see the slices of a series together, from the out-of-fold predictions of the runs.

    Each is trained on every fold and leaves a run that `ichtune blend` takes like any other. An interrupted command
    goes on when it is given again; what is finished, in a search too, is not trained again.

    Example: ichtune stack --recipe level2_gru --recipe level2_trees
    """
    from ichtune.cli.console import note, result, result_json
    from ichtune.cli.places import open_place

    named = _named(recipe or (), search, top)
    workspace = open_place(work, quiet, with_runs=True)
    is_generated, rows = bool(workspace.about.get("generated")), []
    recipes = _settled(workspace, named or _chosen(workspace, search, top, quiet))
    for done, compared, metadata in _train(workspace, recipes, quiet):
        rows.append({**_row(done, compared, metadata), "generated": is_generated})
        if not as_json:
            for line in _lines(done, compared, metadata, is_generated):
                result(line)
    if as_json:
        result_json(rows)
        return
    note(f"next: ichtune blend{work_argument(work)}", quiet)


def _named(names: Sequence[str], search: str | None, top: int | None) -> "list[SecondLevelRecipe]":
    from ichtune.recipe_file import read_second_level_recipe

    if names and (top is not None or search is not None):
        raise ConfigError("--top and --search choose winners of a search, --recipe names recipes; give one of them")
    return [read_second_level_recipe(name) for name in dict.fromkeys(names)]


def _chosen(workspace: "Workspace", search: str | None, top: int | None, quiet: bool) -> "list[SecondLevelRecipe]":
    """Return the winners of searches where they are asked for, or where there are any; else the default recipes."""
    from ichtune.cli.console import note
    from ichtune.search.trial_table import finished_searches, second_level_winners, train_top
    from ichtune.second_level_recipe import LEVEL

    found = finished_searches(workspace.layout, LEVEL)
    if search is None and top is None and not found:
        return _named(DEFAULT_RECIPES, None, None)
    n = top or train_top(workspace.layout, search, LEVEL)
    chosen = second_level_winners(workspace.layout, n, search)
    note(f"winners of search {search or ', '.join(found) or 'under way'}; --recipe names other recipes", quiet)
    return chosen


def _settled(workspace: "Workspace", recipes: "Sequence[SecondLevelRecipe]") -> "list[SecondLevelRecipe]":
    """Return the recipes with their members named; what each needs is here then, or missed now, before the first."""
    from ichtune.search.mirror import fetch_runs
    from ichtune.second_level.inputs import with_members
    from ichtune.second_level.models import create_series_model

    settled = list(dict.fromkeys(with_members(workspace, recipe) for recipe in recipes))
    for recipe in settled:
        create_series_model(recipe)
    fetch_runs(workspace, settled)
    return settled


def _train(
    workspace: "Workspace", recipes: "Sequence[SecondLevelRecipe]", quiet: bool
) -> "list[tuple[StackedRun, Comparison, MetadataLosses | None]]":
    """Train each recipe on every fold; the bar counts the epochs of all of them."""
    from ichtune.cli.console import note, progress
    from ichtune.cli.places import put_back
    from ichtune.second_level.comparison import compare
    from ichtune.second_level.metadata import metadata_losses
    from ichtune.second_level.stacking_runs import stack as stack_recipe
    from ichtune.training.results import EpochResult, FoldResult

    k, done_epochs, begun = workspace.fold_plan.k, 0, _begun(workspace)
    total = sum(k * recipe.n_epochs for recipe in recipes)
    found = []
    note(f"training {len(recipes)} recipes of the second level on {k} folds each", quiet)
    for recipe in recipes:
        note(f"  {recipe.recipe_id}  {recipe.summary}", quiet)
    with progress("stacking", unit="epochs", quiet=quiet) as bar:
        for place, recipe in enumerate(recipes):

            def show(fold: int, result: EpochResult | FoldResult) -> None:
                nonlocal done_epochs
                done_epochs += result.epochs if isinstance(result, FoldResult) else 1
                bar.update(done_epochs, total, f"{recipe.model}, fold {fold}")  # noqa: B023 - called in this turn only

            bar.update(done_epochs, total, recipe.model)
            done = stack_recipe(workspace, recipe, show, begun)
            done_epochs = sum(k * one.n_epochs for one in recipes[: place + 1])  # those of trials too
            bar.update(done_epochs, total, recipe.model)
            put_back(workspace, [workspace.layout.runs / recipe.recipe_id], quiet)
            for text in done.notes:
                note(text, quiet)
            view, y_RL, fold_R = done.inputs.labelled, done.inputs.y_RL, done.inputs.fold_R
            sees_metadata = recipe.metadata or recipe.metadata_only
            metadata = metadata_losses(view, y_RL, fold_R) if sees_metadata else None
            found.append((done, compare(done.inputs, done.p_oof_RL), metadata))
    return found


def _begun(workspace: "Workspace") -> "Begun":
    """Return what finds the checkpoint that a trial of a search left, and fetches it where it lies at a URL."""
    from ichtune.search.node_folder import fetched_file, trial_files

    files, work = trial_files(workspace), workspace.origin or str(workspace.layout.root)

    def find(recipe_id: str, fold: int) -> "Path | None":
        file = files.get((recipe_id, fold))
        return None if file is None else fetched_file(work, file)

    return find


def _row(done: "StackedRun", compared: "Comparison", metadata: "MetadataLosses | None") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "recipe_id": done.recipe.recipe_id,
        "summary": done.recipe.summary,
        "model": done.recipe.model,
        "members": [asdict(member) for member in done.inputs.members],
        "oof_loss": compared.loss,
        "fold_losses": [fold.val_weighted_log_loss for fold in done.folds],
        "equal_mean_loss": compared.equal_mean_loss,
        "best_single_loss": compared.best_single_loss,
        "to_equal_mean": asdict(compared.to_equal_mean),
        "to_best_single": asdict(compared.to_best_single),
        "metadata_only_loss": None if metadata is None else metadata.metadata_only,
        "prior_loss": None if metadata is None else metadata.prior,
        "seconds": done.seconds,
        "notes": list(done.notes),
    }


def _lines(
    done: "StackedRun", compared: "Comparison", metadata: "MetadataLosses | None", is_generated: bool
) -> list[str]:
    from ichtune.data.phantom.folder import GENERATED_DATA

    on = f", on {GENERATED_DATA}" if is_generated else ""
    folds = " ".join(f"{fold.val_weighted_log_loss:.4f}" for fold in done.folds)
    lines = [
        f"{done.recipe.recipe_id}  out-of-fold {compared.loss:.4f}  folds {folds}  {done.recipe.summary}{on}",
        f"  equal mean of its inputs {_compared(compared.equal_mean_loss, compared.to_equal_mean)}",
        f"  best single input        {_compared(compared.best_single_loss, compared.to_best_single)}",
    ]
    if metadata is not None:
        lines.append(
            f"  metadata alone           {metadata.metadata_only:.4f}  what a scanner tells without a look at the "
            f"slice; the labels' rates alone {metadata.prior:.4f}"
        )
    return lines


def _compared(loss: float, difference: Any) -> str:
    share = f" ({difference.estimate / loss:+.1%})" if loss > 0 else ""
    return (
        f"{loss:.4f}  difference {difference.estimate:+.4f}{share}, 95 % interval {difference.low:+.4f} to "
        f"{difference.high:+.4f}"
    )
