"""``ichtune stack``: models of the second level, which learn along the series from the runs that are there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ichtune.cli.options import DEFAULT_PLACE, JsonOption, PlaceOption, QuietOption, work_argument
from ichtune.errors import ConfigError

if TYPE_CHECKING:
    from ichtune.second_level.comparison import Comparison
    from ichtune.second_level.stacking_runs import StackedRun
    from ichtune.second_level_recipe import SecondLevelRecipe
    from ichtune.workspace import Workspace

#: What is trained where no recipe is named: one model of each kind.
DEFAULT_RECIPES = ("level2_gru", "level2_trees", "level2_smoothing")


def stack(
    work: PlaceOption = DEFAULT_PLACE,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe",
            help="A recipe of the second level: a YAML file or a shipped one's name. May be given several times.",
            show_default=", ".join(DEFAULT_RECIPES),
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train models that see the slices of a series together, from the out-of-fold predictions of the runs.

    Each is trained on every fold and leaves a run that `ichtune blend` takes like any other. An interrupted command
    goes on when it is given again; what is finished is not trained again.

    Example: ichtune stack --recipe level2_gru --recipe level2_trees
    """
    from ichtune.cli.console import note, result, result_json
    from ichtune.cli.places import open_place, put_back

    recipes = _recipes(recipe or DEFAULT_RECIPES)
    workspace = open_place(work, quiet, with_runs=True)
    _check_place(workspace, recipes)
    is_generated, rows = bool(workspace.about.get("generated")), []
    for done, compared, metadata_loss in _train(workspace, recipes, quiet):
        put_back(workspace, [workspace.layout.runs / done.recipe.recipe_id], quiet)
        rows.append({**_row(done, compared, metadata_loss), "generated": is_generated})
        if not as_json:
            for line in _lines(done, compared, metadata_loss, is_generated):
                result(line)
    if as_json:
        result_json(rows)
        return
    note(f"next: ichtune blend{work_argument(work)}", quiet)


def _recipes(names: Sequence[str]) -> "list[SecondLevelRecipe]":
    from ichtune.recipe_file import read_second_level_recipe
    from ichtune.second_level.models import create_series_model

    recipes = [read_second_level_recipe(name) for name in dict.fromkeys(names)]
    for recipe in recipes:
        create_series_model(recipe)  # what it needs is missed now, not after the first of several
    return recipes


def _check_place(workspace: "Workspace", recipes: "Sequence[SecondLevelRecipe]") -> None:
    if workspace.origin and any(recipe.embeddings for recipe in recipes):
        raise ConfigError(
            f"embeddings of runs at {workspace.origin} are not fetched; copy the workspace to a folder of this machine "
            f"first, or write `embeddings: 0` into the recipe"
        )


def _train(
    workspace: "Workspace", recipes: "Sequence[SecondLevelRecipe]", quiet: bool
) -> "list[tuple[StackedRun, Comparison, float | None]]":
    """Train each recipe on every fold; the bar counts the epochs of all of them."""
    from ichtune.cli.console import note, progress
    from ichtune.second_level.comparison import compare
    from ichtune.second_level.inputs import with_members
    from ichtune.second_level.metadata import metadata_only_loss
    from ichtune.second_level.stacking_runs import stack as stack_recipe
    from ichtune.training.results import EpochResult, FoldResult

    recipes = [with_members(workspace, recipe) for recipe in recipes]
    k, done_epochs = workspace.fold_plan.k, 0
    total = sum(k * recipe.n_epochs for recipe in recipes)
    found = []
    note(f"training {len(recipes)} recipes of the second level on {k} folds each", quiet)
    with progress("stacking", unit="epochs", quiet=quiet) as bar:
        for recipe in recipes:

            def show(fold: int, result: EpochResult | FoldResult) -> None:
                nonlocal done_epochs
                done_epochs += result.epochs if isinstance(result, FoldResult) else 1
                bar.update(done_epochs, total, f"{recipe.model}, fold {fold}")  # noqa: B023 - called in this turn only

            bar.update(done_epochs, total, recipe.model)
            done = stack_recipe(workspace, recipe, show)
            for text in done.notes:
                note(text, quiet)
            view, y_RL, fold_R = done.inputs.labelled, done.inputs.y_RL, done.inputs.fold_R
            sees_metadata = recipe.metadata or recipe.metadata_only
            metadata_loss = metadata_only_loss(view, y_RL, fold_R) if sees_metadata else None
            found.append((done, compare(done.inputs, done.p_oof_RL), metadata_loss))
    return found


def _row(done: "StackedRun", compared: "Comparison", metadata_loss: float | None) -> dict[str, Any]:
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
        "metadata_only_loss": metadata_loss,
        "seconds": done.seconds,
        "notes": list(done.notes),
    }


def _lines(done: "StackedRun", compared: "Comparison", metadata_loss: float | None, is_generated: bool) -> list[str]:
    from ichtune.data.phantom.folder import GENERATED_DATA

    on = f", on {GENERATED_DATA}" if is_generated else ""
    folds = " ".join(f"{fold.val_weighted_log_loss:.4f}" for fold in done.folds)
    lines = [
        f"{done.recipe.recipe_id}  out-of-fold {compared.loss:.4f}  folds {folds}  {done.recipe.summary}{on}",
        f"  equal mean of its inputs {_compared(compared.equal_mean_loss, compared.to_equal_mean)}",
        f"  best single input        {_compared(compared.best_single_loss, compared.to_best_single)}",
    ]
    if metadata_loss is not None:
        lines.append(
            f"  metadata alone           {metadata_loss:.4f}  what a scanner tells without a look at the slice"
        )
    return lines


def _compared(loss: float, difference: Any) -> str:
    share = f" ({difference.estimate / loss:+.1%})" if loss > 0 else ""
    return (
        f"{loss:.4f}  difference {difference.estimate:+.4f}{share}, 95 % interval {difference.low:+.4f} to "
        f"{difference.high:+.4f}"
    )
