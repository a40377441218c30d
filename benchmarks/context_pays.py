"""What the second level adds to a network that sees single slices, and to one that already sees neighbours.

Real training on a phantom, three folds and three seeds, then every shipped second level on the out-of-fold predictions
of one network alone. Which second level is told of is chosen for each fold on the other folds, so that the choice
flatters nobody. Generated data.

Dimension key: C second levels, R labelled slices, L labels.
"""

import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.techniques import BASE
from ichtune.data.phantom.generate import PhantomSpec, write_phantom
from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.ensemble.crossfit import crossfit
from ichtune.metrics import slice_losses
from ichtune.recipe import Recipe
from ichtune.recipe_file import read_second_level_recipe
from ichtune.second_level.comparison import Comparison, compare
from ichtune.second_level.stacking_runs import StackedRun, stack
from ichtune.workspace import Workspace

N_PATIENTS, N_FOLDS = 150, 3
SEEDS = (7, 8, 9)
#: The networks, by what they see.
NETWORKS = {
    "sees single slices": {"neighbours": 0},
    "already sees its neighbours (±1)": {"neighbours": 1},
}
SECOND_LEVELS = (
    *("level2_kernel", "level2_smoothing", "level2_trees"),
    *("level2_gru", "level2_lstm", "level2_conv", "level2_transformer"),
)
#: What the second level that is chosen came to, and the loss of each by its name.
Told = tuple[Comparison, dict[str, float]]


def measure() -> Iterator[tuple[str, str, str]]:
    """Yield a row for each network: its loss, and what the second level that is chosen made of it."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(max_workers=2) as pool:
        work = _workspace(Path(folder))
        of_network = [[Recipe(**{**BASE, **keys, "seed": seed}) for seed in SEEDS] for keys in NETWORKS.values()]
        recipes = [recipe for of_one in of_network for recipe in of_one]
        jobs = list(product(recipes, range(N_FOLDS)))
        list(pool.map(_train, [work] * len(jobs), *zip(*jobs, strict=True)))
        told = dict(zip(recipes, pool.map(_stack, [work] * len(recipes), recipes), strict=True))
        for what, of_one in zip(NETWORKS, of_network, strict=True):
            yield _row(what, [told[recipe] for recipe in of_one])


def _row(what: str, told: list[Told]) -> tuple[str, str, str]:
    changes = [chosen.to_equal_mean.estimate / chosen.equal_mean_loss for chosen, _ in told]
    losses = [statistics.mean(getattr(chosen, key) for chosen, _ in told) for key in ("equal_mean_loss", "loss")]
    intervals = ", ".join(f"{one.to_equal_mean.low:+.4f} to {one.to_equal_mean.high:+.4f}" for one, _ in told)
    each = ", ".join(
        f"{name.removeprefix('level2_')} {statistics.mean(by_name[name] for _, by_name in told):.4f}"
        for name in SECOND_LEVELS
    )
    return (
        f"a second level on a network that {what}",
        f"**{statistics.mean(changes):+.1%}** ({min(changes):+.1%} to {max(changes):+.1%})",
        f"out-of-fold weighted log loss {losses[0]:.4f} to {losses[1]:.4f}, seeds {SEEDS} of the network (differences, "
        f"95 % patient bootstrap: {intervals}); chosen on the other folds; each by itself: {each}; {N_PATIENTS} "
        f"patients, generated data",
    )


def _stack(work: Path, recipe: Recipe) -> Told:
    """Put a network's folds together and train every second level on its predictions alone."""
    import torch

    from ichtune.training.crossval import assemble_run

    torch.set_num_threads(1)
    workspace = Workspace(work)
    assemble_run(workspace, recipe)
    runs = {
        name: stack(workspace, replace(read_second_level_recipe(name), members=(recipe.recipe_id,)))
        for name in SECOND_LEVELS
    }
    return _of_the_chosen(list(runs.values())), {name: run.oof_loss for name, run in runs.items()}


def _of_the_chosen(runs: list[StackedRun]) -> Comparison:
    """Compare with its input what, for each fold, is best on the others."""
    inputs = runs[0].inputs
    p_CRL = np.stack([run.p_oof_RL for run in runs])
    loss_CR = np.stack([slice_losses(inputs.y_RL, p_RL) for p_RL in p_CRL])

    def best_of(fit_rows: np.ndarray, predict_rows: np.ndarray) -> np.ndarray:
        return np.asarray(p_CRL[loss_CR[:, fit_rows].mean(axis=1).argmin(), predict_rows])

    return compare(inputs, crossfit(best_of, inputs.fold_R, p_CRL.shape[2]))


def _train(work: Path, recipe: Recipe, fold: int) -> None:
    import torch

    from ichtune.training.crossval import train_fold

    torch.set_num_threads(1)
    train_fold(Workspace(work), recipe, fold)


def _workspace(folder: Path) -> Path:
    write_phantom(folder / "phantom", PhantomSpec(n_patients=N_PATIENTS, size_px=128, seed=7))
    labels = folder / "phantom" / "stage_2_train.csv"
    prepare(PrepareSpec(dicom_dir=folder / "phantom", labels=labels, out=folder / "work", size_px=64, k=N_FOLDS))
    return folder / "work"


if __name__ == "__main__":
    for row in measure():
        print(*row, sep="  ", flush=True)
