"""ichtune lr-find: one short training with a growing learning rate, its plot and what it suggests."""

import shlex
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
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Sweep the recipe's frozen epochs, in which head and norms learn alone.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="Where the plot goes.")] = Path("lr_find.png"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find the learning rate to try first: train a recipe while the rate grows, and plot its loss.

    Nothing of the training is kept. Two rules of thumb are printed: the rate at which the loss falls fastest, and a
    tenth of that at which it is lowest. Start from the smaller one.

    Example: ichtune lr-find --recipe exp_00
    """
    from dataclasses import replace

    from ichtune.cli.console import note, progress, result, result_json
    from ichtune.errors import ConfigError
    from ichtune.recipe_file import read_recipe
    from ichtune.report.lr_plot import write_lr_plot
    from ichtune.tables import check_writable
    from ichtune.training.checks import check_recipe
    from ichtune.training.fold_run import open_fold
    from ichtune.training.lr_finder import suggest, sweep
    from ichtune.workspace import Workspace

    check_writable(out)
    workspace = Workspace(work)
    chosen = read_recipe(recipe)
    key = "frozen_lr" if frozen else "lr"
    chosen = replace(chosen, frozen_epochs=chosen.frozen_epochs if frozen else 0)
    if frozen and not chosen.frozen_epochs:
        raise ConfigError(f"--frozen sweeps the frozen epochs, but {recipe} has frozen_epochs 0; leave --frozen out")
    check_recipe(chosen)
    run = open_fold(workspace, chosen, fold).run
    with progress("sweeping", unit="steps", quiet=quiet) as bar:
        curve = sweep(run, low, high, steps, lambda done, lr: bar.update(done, steps, f"lr {lr:.1e}"))
    data = "generated data" if workspace.about.get("generated") else work.name
    title = f"{chosen.summary}, {data}"
    write_lr_plot(curve, {}, title, out)  # a sweep that suggests nothing is worth looking at, too
    found = suggest(curve)
    marks = {"falls fastest": found.steepest, "a tenth of the lowest": found.minimum_tenth}
    write_lr_plot(curve, marks, title, out)
    if as_json:
        result_json({"steepest": found.steepest, "minimum_tenth": found.minimum_tenth, "plot": str(out), **vars(curve)})
        return
    result(f"falls fastest at {found.steepest:.1e}, a tenth of the lowest is {found.minimum_tenth:.1e}; plot in {out}")
    for line in run.notes:
        note(line, quiet)
    train = shlex.join(["ichtune", "train", "--recipe", recipe])
    note(f"next: write {key} into the recipe, and {train}{work_argument(work)}", quiet)
