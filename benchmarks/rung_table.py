"""Generate the table of full curves that the search benchmarks replay: ``python -m benchmarks.rung_table``.

Every recipe of a full grid is trained to its end on one fold of a phantom, with several seeds, and judged at two early
epochs in every way that a rung could judge: by the weights that predict, by the mean of the plain weights over the
epoch, by a cooldown on a branch of two lengths; the inner part of the grid also by complete short schedules. Generated
data throughout.

The table is shipped as ``benchmarks/tables/phantom_curves.jsonl``, one line a run; making it again takes about two
hours on two cores. A run that is in the output already is not trained again.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ichtune.data.phantom.generate import PhantomSpec, write_phantom
from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.recipe import Recipe
from ichtune.workspace import Workspace

TABLE = Path(__file__).parent / "tables" / "phantom_curves.jsonl"
SEEDS = (1, 2, 3)
#: What every recipe shares; 9 epochs, so that rungs at 1 and 3 leave a factor of 3 between them.
FIXED: dict[str, Any] = {
    "architecture": "tiny_convnet",
    "image_px": 64,
    "batch_size": 16,
    "epochs": 9,
    "lr_schedule": "flat_cosine",
    "warmup": 0.02,
    "ema_decay": 0.98,
}
#: The grid: every combination is trained. It reaches to learning rates and windows that a search should leave soon.
GRID: dict[str, tuple[Any, ...]] = {
    "windows": ("bone", "brain", "subdural", "brain_subdural_bone", "brain_subdural_blood"),
    "neighbours": (0, 1),
    "lr": (3e-4, 1e-3, 3e-3, 8e-3, 2e-2, 5e-2),
    "anneal_start": (0.2, 0.7),
}
#: Its inner part, within which rungs are compared.
INNER: dict[str, tuple[Any, ...]] = {**GRID, "windows": GRID["windows"][1:], "lr": GRID["lr"][1:-1]}
#: Epochs after which a run is judged in every way, and lengths of the branches, in epochs.
JUDGED_AT = (1, 3)
COOLDOWNS = (0.5, 1.0)
#: Three quarters of the inner recipes are judged by complete short schedules too, with the first two seeds.
SHORT_SEEDS = SEEDS[:2]


def grid() -> list[dict[str, Any]]:
    """Return the searched values of every recipe of the table, in the table's order."""
    return [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]


def recipe_of(values: dict[str, Any], seed: int, **other: Any) -> Recipe:
    return Recipe.from_dict({**FIXED, **values, "seed": seed, **other})


def has_short(number: int, seed: int) -> bool:
    """Return whether a run is judged by complete short schedules too."""
    values = grid()[number]
    if seed not in SHORT_SEEDS or any(value not in INNER[key] for key, value in values.items()):
        return False
    places = [INNER[key].index(value) for key, value in values.items()]
    return sum(places) % 4 > 0  # every value in equal parts


def read_table(path: Path = TABLE) -> list[dict[str, Any]]:
    """Return the runs of a table."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def train_one(work: Path, truth: Path, number: int, seed: int) -> dict[str, Any]:
    """Train one recipe to its end and return everything that could judge it on the way."""
    import torch

    torch.set_num_threads(1)
    from ichtune.training.averages import EqualAverage
    from ichtune.training.branch import cooldown
    from ichtune.training.fold_run import open_fold

    values = grid()[number]
    opened = open_fold(Workspace(work), recipe_of(values, seed), 0, torch.device("cpu"))
    run = opened.run
    found: dict[str, Any] = {"last": [], "average": [], "cooldown": {str(c): {} for c in COOLDOWNS}, "seconds": []}
    while not run.finished:
        average = EqualAverage(run.network, keeps=True)
        result = run.run_epoch(lambda run, average=average: average.update(run.network))
        found["last"].append(_rounded(result.val_weighted_log_loss))
        found["seconds"].append(round(result.seconds, 3))
        with average.applied_to(run.network):
            found["average"].append(_loss(run, run.valid_rows))
        if run.epoch in JUDGED_AT:
            for length in COOLDOWNS:
                found["cooldown"][str(length)][str(run.epoch)] = _rounded(cooldown(run, length).val_weighted_log_loss)
    found["test"] = _test_loss(run, opened.rows.test, truth)
    if has_short(number, seed):
        found["short"] = {}
        for epochs in JUDGED_AT:
            short = open_fold(Workspace(work), replace(run.recipe, epochs=epochs), 0, torch.device("cpu")).run
            while not short.finished:
                short.run_epoch()
            found["short"][str(epochs)] = _rounded(short.history[-1].val_weighted_log_loss)
    return {"recipe": number, "seed": seed, "values": values, **found}


def _rounded(loss: float) -> float | None:
    return round(loss, 5) if np.isfinite(loss) else None


def _loss(run: Any, rows: np.ndarray) -> float | None:
    from ichtune.metrics import weighted_log_loss

    p_NL = run.predict_plain(rows)
    return _rounded(weighted_log_loss(run.data.labels(rows), p_NL)) if np.isfinite(p_NL).all() else None


def _test_loss(run: Any, rows: np.ndarray, truth: Path) -> float | None:
    """Loss on patients whom no search sees, by the phantom's truth."""
    from ichtune.metrics import weighted_log_loss
    from ichtune.report.scoring import read_label_matrix

    told = read_label_matrix(truth)
    place = {image_id: i for i, image_id in enumerate(told.image_ids)}
    ids = run.data.slices["image_id"].to_numpy()[rows]
    p_NL = run.predict(rows)
    return (
        _rounded(weighted_log_loss(told.values_NL[[place[i] for i in ids]], p_NL)) if np.isfinite(p_NL).all() else None
    )


def make_workspace(folder: Path) -> tuple[Path, Path]:
    """Generate and prepare the phantom; returns the workspace and the truth of its test slices."""
    phantom, work = folder / "phantom", folder / "work"
    if not (phantom / "truth.csv").is_file():
        write_phantom(phantom, PhantomSpec(n_patients=100, size_px=96, difficulty=0.5, seed=11))
    prepare(PrepareSpec(phantom, phantom / "stage_2_train.csv", work, size_px=64, k=3))
    return work, phantom / "truth.csv"


def missing_runs(table: Path) -> Iterator[tuple[int, int]]:
    """Yield the runs that a table lacks, those with short schedules first."""
    done = {(run["recipe"], run["seed"]) for run in read_table(table)} if table.is_file() else set()
    runs = [(number, seed) for seed in SEEDS for number in range(len(grid()))]
    runs.sort(key=lambda run: (not has_short(*run), run[1]))
    yield from (run for run in runs if run not in done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--work", type=Path, help="keep the generated data here; a temporary folder by default")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(chosen.workers) as pool:
        work, truth = make_workspace(chosen.work or Path(folder))
        waiting = [pool.submit(train_one, work, truth, *run) for run in missing_runs(chosen.out)]
        for number, future in enumerate(waiting, start=1):
            with chosen.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(future.result()) + "\n")
            print(f"{number} of {len(waiting)} runs")


if __name__ == "__main__":
    main()
