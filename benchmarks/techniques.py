"""Which technique pays on the phantom: one key changed at a time, three seeds each, at the demo's size.

Losses are those of the last epoch on fold 0's patients, whom no run has seen. The data is generated: what pays here
need not pay on real heads, but what is broken shows.
"""

import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from ichtune.data.phantom.generate import PhantomSpec, write_phantom
from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.recipe import Recipe
from ichtune.workspace import Workspace

SEEDS = (7, 8, 9)
#: The recipe that every other one changes in one thing.
BASE: dict[str, Any] = {
    "architecture": "tiny_convnet",
    "windows": "brain_subdural_blood",
    "image_px": 64,
    "neighbours": 1,
    "lr": 4e-3,
    "anneal_start": 0.4,
    "epochs": 7,
    "batch_size": 32,
    "ema_decay": 0.98,
}
#: What is compared: a name, and the keys in which it differs from the base.
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("three windows, neighbours ±1: the base of the others", {}),
    ("one window (40/80), neighbours ±1", {"windows": "brain"}),
    ("three windows, no neighbours", {"neighbours": 0}),
    ("one window (40/80), no neighbours", {"windows": "brain", "neighbours": 0}),
    ("neighbours ±2", {"neighbours": 2}),
    ("the slice and the mean of ±2", {"neighbours": 2, "neighbour_use": "slice_and_mean"}),
    ("neighbours' labels as further targets, weight 0.3", {"neighbour_targets": 0.3}),
    ("windows learnt", {"learnable_windows": True}),
    ("sigmoid windows", {"window_shape": "sigmoid"}),
    ("window jitter 0.1", {"window_jitter": 0.1}),
    ("input scaled by the data's moments", {"normalisation": "data"}),
    ("no mirroring", {"flip": 0.0}),
    ("rotation by up to 15 degrees, zoom 0.1", {"rotate_deg": 15.0, "zoom": 0.1}),
    ("order of the slices reversed, half of the time", {"flip_slices": 0.5}),
    ("cutout", {"cutout": 0.5}),
    ("mixup, alpha 0.2", {"mixup": 0.2}),
    ("cutmix, alpha 1", {"cutmix": 1.0}),
    ("label smoothing 0.02", {"label_smoothing": 0.02}),
    ("soft labels at the ends of a bleed, 0.1", {"boundary_softness": 0.1}),
    ("all labels weighted alike", {"loss_weights": [1, 1, 1, 1, 1, 1]}),
    ("focal loss, gamma 1", {"loss": "focal"}),
    ("positive slices weighted twice, undone", {"positive_weights": [2.0] * 6, "calibration": "prior_shift"}),
    ("half of the negative slices an epoch, undone", {"negative_share": 0.5, "calibration": "prior_shift"}),
    ("any = 1 - prod(1 - p)", {"any_rule": "noisy_or"}),
    ("Ranger", {"optimizer": "ranger"}),
    ("one-cycle", {"lr_schedule": "one_cycle", "warmup": 0.3}),
    ("no average of the weights", {"ema_decay": 0.0}),
    ("SWA over the last 3 epochs", {"ema_decay": 0.0, "swa_start": 0.55}),
    ("last 3 epochs answer together", {"snapshots": 3}),
    ("mirrored view averaged", {"tta": "flip"}),
    ("started from the same recipe at 32 px", {"warm_start": "32 px"}),
    ("taught by its own predictions of the unlabelled slices", {"pseudo_labels": "base"}),
)


def measure() -> Iterator[tuple[str, str, str]]:
    """Yield one row a technique: mean loss and range over the seeds, and its difference from the base."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(max_workers=2) as pool:
        work = _workspace(Path(folder))
        sources = {name: [list(pool.map(_train, *_jobs(work, keys)))] for name, keys in SOURCES.items()}
        losses = {}
        for name, keys in CASES:
            losses[name] = pool.map(_loss, *_jobs(work, _resolved(keys, sources)))
        base = list(losses.pop(CASES[0][0]))
        yield CASES[0][0], _range(base), f"weighted log loss on fold 0, generated data, seeds {SEEDS}"
        for name, found in losses.items():
            yield name, _range(each := list(found)), _verdict(each, base)


#: Runs that others start from, by the name under which a case refers to them.
SOURCES: dict[str, dict[str, Any]] = {"32 px": {"image_px": 32}, "base": {}}


def _resolved(keys: dict[str, Any], sources: dict[str, Any]) -> dict[str, Any]:
    return {
        key: sources[value][0] if isinstance(value, str) and value in sources else value for key, value in keys.items()
    }


def _jobs(work: Path, keys: dict[str, Any]) -> tuple[list[Path], list[Recipe]]:
    recipes = []
    for place, seed in enumerate(SEEDS):
        own = {key: value[place] if key in ("warm_start", "pseudo_labels") else value for key, value in keys.items()}
        recipes.append(Recipe(**{**BASE, **own, "seed": seed}))
    return [work] * len(SEEDS), recipes


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _train(work: Path, recipe: Recipe) -> str:
    from ichtune.training.crossval import train_fold

    _one_thread()
    train_fold(Workspace(work), recipe, 0)
    return recipe.recipe_id


def _loss(work: Path, recipe: Recipe) -> float:
    from ichtune.training.fold_run import open_fold

    _one_thread()
    run = open_fold(Workspace(work), recipe, 0).run
    while not run.finished:
        run.run_epoch()
    return run.history[-1].val_weighted_log_loss


def _range(losses: list[float]) -> str:
    return f"{statistics.mean(losses):.4f} ({min(losses):.4f} to {max(losses):.4f})"


def _verdict(losses: list[float], base: list[float]) -> str:
    change = statistics.mean(losses) / statistics.mean(base) - 1.0
    n_lower = sum(one < other for one, other in zip(losses, base, strict=True))
    word = {0: "does not help", len(base): "helps"}.get(n_lower, "no clear difference")
    return f"{change:+.1%}; lower in {n_lower} of {len(base)} seeds: {word}"


def _workspace(folder: Path) -> Path:
    write_phantom(folder / "phantom", PhantomSpec(n_patients=150, size_px=128, seed=7))
    labels = folder / "phantom" / "stage_2_train.csv"
    prepare(PrepareSpec(dicom_dir=folder / "phantom", labels=labels, out=folder / "work", size_px=64, k=3))
    return folder / "work"


if __name__ == "__main__":
    for row in measure():
        print(*row, sep="  ", flush=True)
