"""ichtune train: train the winners of a search, or one recipe, on every fold."""

from typing import TYPE_CHECKING, Annotated

import typer

from ichtune.cli.options import DEFAULT_PLACE, JsonOption, PlaceOption, QuietOption, work_argument
from ichtune.errors import ConfigError

if TYPE_CHECKING:
    from ichtune.recipe import Recipe
    from ichtune.workspace import Workspace


def train(
    work: PlaceOption = DEFAULT_PLACE,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="How many distinct winners to train; the search's own by default."),
    ] = None,
    search: Annotated[str | None, typer.Option("--search", help="Only winners of this search.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Train this recipe instead: a YAML file or a shipped one's name."),
    ] = None,
    cpu: Annotated[float, typer.Option("--cpu", min=0.1, help="CPU cores a fold.")] = 1.0,
    gpu: Annotated[
        float, typer.Option("--gpu", min=0.0, help="GPUs a fold, where there are any; may be a share.")
    ] = 1.0,
    address: Annotated[
        str | None, typer.Option("--address", help="Ray cluster to join; RAY_ADDRESS counts too.")
    ] = None,
    keep_snapshots: Annotated[
        bool, typer.Option("--keep-snapshots", help="Keep the weights of every epoch, not only those that predict.")
    ] = False,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Also write the features before the classifier, for a second level.")
    ] = False,
    checkpoint_minutes: Annotated[
        float, typer.Option("--checkpoint-minutes", min=0.0, help="Time between two checkpoints within an epoch.")
    ] = 10.0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the best distinct recipes on every fold; keep weights, out-of-fold and test predictions.

    An interrupted training goes on with the same command: folds that are trained are not trained again.

    Example: ichtune train --top 3
    """
    from ichtune.cli.console import note, progress, result, result_json
    from ichtune.cli.places import fetch_pixels, open_place
    from ichtune.search.crossval_tasks import CrossvalProgress, train_recipes
    from ichtune.space import Resources
    from ichtune.training.crossval import TrainOptions
    from ichtune.training.fold_run import enlargement

    workspace = open_place(work, quiet)
    _ = workspace.about
    recipes = _recipes(workspace, recipe, search, top)
    fetch_pixels(workspace, [(chosen.image_px, chosen.crop) for chosen in recipes], quiet)
    options = TrainOptions(60.0 * checkpoint_minutes, keep_snapshots, embeddings)
    note(f"training {len(recipes)} recipes on {workspace.fold_plan.k} folds each", quiet)
    for chosen in recipes:
        note(f"  {chosen.recipe_id}  {chosen.summary}", quiet)
        enlarged = enlargement(workspace, chosen)
        if enlarged:
            note(f"    {enlarged}", quiet)
    with progress("training", unit="epochs", quiet=quiet) as bar:

        def show(so_far: CrossvalProgress) -> None:
            bar.update(so_far.epochs_done, so_far.epochs, f"{so_far.folds_done}/{so_far.folds} folds")

        runs = train_recipes(workspace, recipes, Resources(gpu=gpu, cpu=cpu), address, show, options)
    rows = [
        {
            "recipe_id": run.recipe.recipe_id,
            "summary": run.recipe.summary,
            "oof_loss": run.oof_loss,
            "fold_losses": list(run.fold_losses),
            "seconds": run.seconds,
        }
        for run in runs
    ]
    if as_json:
        result_json(rows)
        return
    for run in runs:
        folds = " ".join(f"{loss:.4f}" for loss in run.fold_losses)
        result(f"{run.recipe.recipe_id}  out-of-fold {run.oof_loss:.4f}  folds {folds}  {run.recipe.summary}")
    note(f"next: ichtune blend{work_argument(work)}", quiet)


def _recipes(workspace: "Workspace", recipe: str | None, search: str | None, top: int | None) -> "list[Recipe]":
    from ichtune.recipe_file import read_recipe
    from ichtune.search.trial_table import train_top, winners
    from ichtune.training.checks import check_recipe

    if recipe is not None and (top is not None or search is not None):
        raise ConfigError("--top and --search choose winners of a search, --recipe names one recipe; give one of them")
    if recipe is None:
        return winners(workspace.layout, top or train_top(workspace.layout, search), search)
    chosen = read_recipe(recipe)
    check_recipe(chosen)
    return [chosen]
