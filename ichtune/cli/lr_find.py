"""ichtune lr-find: one short training with a growing learning rate, its plot and what it suggests."""

from pathlib import Path
from typing import Annotated

import typer

from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption, WorkOption, work_argument


def lr_find(
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe's YAML file or a shipped one's name.")],
    work: WorkOption = DEFAULT_WORK,
    fold: Annotated[int, typer.Option("--fold", min=0, help="The fold that is held out, and not looked at.")] = 0,
    low: Annotated[float, typer.Option("--low", help="First learning rate.")] = 1e-7,
    high: Annotated[float, typer.Option("--high", help="Last learning rate.")] = 10.0,
    steps: Annotated[int, typer.Option("--steps", min=3, help="Optimizer steps.")] = 100,
    out: Annotated[Path, typer.Option("--out", help="Where the plot goes.")] = Path("lr_find.png"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find the learning rate to try first: train a recipe while the rate grows, and plot its loss.

    Nothing of the training is kept. Two rules of thumb are printed: the rate at which the loss falls fastest, and a
    tenth of that at which it is lowest. The peak of a one-cycle or flat-then-cosine schedule lies between them.

    Example: ichtune lr-find --recipe exp_00
    """
    from ichtune.cli.console import note, progress, result, result_json
    from ichtune.recipe_file import read_recipe
    from ichtune.report.lr_plot import write_lr_plot
    from ichtune.training.checks import check_recipe
    from ichtune.training.fold_run import open_fold
    from ichtune.training.lr_finder import suggest, sweep
    from ichtune.workspace import Workspace

    workspace = Workspace(work)
    chosen = read_recipe(recipe)
    check_recipe(chosen)
    run = open_fold(workspace, chosen, fold).run
    with progress("sweeping", unit="steps", quiet=quiet) as bar:
        curve = sweep(run, low, high, steps, lambda done, lr: bar.update(done, steps, f"lr {lr:.1e}"))
    found = suggest(curve)
    marks = {"falls fastest": found.steepest, "a tenth of the lowest": found.minimum_tenth}
    data = "generated data" if workspace.about.get("generated") else work.name
    write_lr_plot(curve, marks, f"{chosen.summary}, {data}", out)
    if as_json:
        result_json({"steepest": found.steepest, "minimum_tenth": found.minimum_tenth, "plot": str(out), **vars(curve)})
        return
    result(f"falls fastest at {found.steepest:.1e}, a tenth of the lowest is {found.minimum_tenth:.1e}; plot in {out}")
    note(f"next: write lr into the recipe, and ichtune train --recipe {recipe}{work_argument(work)}", quiet)
