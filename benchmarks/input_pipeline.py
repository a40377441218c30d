"""What reading, augmenting and windowing cost beside the bare training step of the same network on ready tensors."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ichtune.data.phantom.generate import PhantomSpec, write_phantom
from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.recipe import Recipe
from ichtune.training.fold_run import fold_rows, open_batches
from ichtune.training.loop import TrainingRun
from ichtune.workspace import Workspace

REPEATS = 5


def measure() -> Iterator[tuple[str, str, str]]:
    """Yield one row a network: share of the bare step's speed that a whole epoch reaches."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = _workspace(Path(folder))
        for architecture, neighbours in (("tiny_convnet", 0), ("tiny_convnet", 1), ("resnet18", 0)):
            recipe = Recipe(architecture=architecture, image_px=64, batch_size=32, neighbours=neighbours)
            ratio, per_second = _ratio(work, recipe)
            what = f"{architecture}, {recipe.n_channels} channels, 64 px, one core, generated data"
            yield (
                f"training epoch beside bare steps: {what}",
                f"{ratio:.2f}",
                f"median of {REPEATS}; {per_second:.0f} /s",
            )


def _workspace(folder: Path) -> Workspace:
    spec = PhantomSpec(n_patients=24, size_px=64)
    write_phantom(folder / "phantom", spec)
    labels = folder / "phantom" / "stage_2_train.csv"
    prepare(PrepareSpec(dicom_dir=folder / "phantom", labels=labels, out=folder / "work", size_px=64, k=2))
    return Workspace(folder / "work")


def _ratio(work: Workspace, recipe: Recipe) -> tuple[float, float]:
    rows = fold_rows(work, 0)
    run = TrainingRun(recipe, open_batches(work, recipe), rows.train, rows.valid, torch.device("cpu"))
    x_BCHW = torch.rand(recipe.batch_size, recipe.n_channels, 64, 64).contiguous(memory_format=torch.channels_last)
    y_BL = torch.zeros(recipe.batch_size, 6)
    steps = len(rows.train) // recipe.batch_size
    ratios, speeds = [], []
    run._train_epoch()
    for _ in range(REPEATS):
        start = time.perf_counter()
        run._train_epoch()
        whole = (time.perf_counter() - start) / len(rows.train)
        start = time.perf_counter()
        for step in range(steps):
            run._step(x_BCHW, y_BL, step)
        bare = (time.perf_counter() - start) / (steps * recipe.batch_size)
        ratios.append(bare / whole)
        speeds.append(1.0 / whole)
    return statistics.median(ratios), statistics.median(speeds)


if __name__ == "__main__":
    for row in measure():
        print(*row, sep="  ")
