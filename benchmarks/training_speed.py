"""Whole training steps beside the bare forward and backward passes of the same network on random tensors."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from ichtune.data.phantom.generate import PhantomSpec, write_phantom
from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.recipe import Recipe
from ichtune.training.devices import best_device
from ichtune.training.fold_run import open_fold
from ichtune.training.speed import measure_speed
from ichtune.workspace import Workspace

AUGMENTED = {"rotate_deg": 20.0, "zoom": 0.1, "shift": 0.05, "cutout": 0.5}
#: Network, side in pixels, slices a step, further keys.
CASES = (
    ("tiny_convnet", 64, 32, {}),
    ("resnet18", 64, 32, {}),
    ("resnet18", 224, 16, {}),
    ("resnet18", 224, 16, {"neighbours": 1, **AUGMENTED}),
    ("efficientnet_b0", 224, 16, {"neighbours": 1, **AUGMENTED}),
)
ROUNDS = 5


def measure() -> Iterator[tuple[str, str, str]]:
    """Yield one row a network: share of the bare network's speed that training reaches."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = _workspace(Path(folder))
        for architecture, image_px, batch_size, keys in CASES:
            recipe = Recipe(architecture=architecture, image_px=image_px, batch_size=batch_size, **keys)
            run = open_fold(work, recipe, 0, best_device()).run
            speed = measure_speed(run, n_steps=20 if image_px < 100 else 2, n_rounds=ROUNDS)
            augmented = ", rotation, zoom, cutout" if keys else ""
            what = f"{architecture}, {recipe.n_channels} channels, {image_px} px{augmented}, one core, generated data"
            yield (
                f"training beside bare forward and backward: {what}",
                f"{speed.ratio:.2f}",
                f"median of {ROUNDS}; {speed.images_per_second:.0f} /s beside {speed.bare_per_second:.0f} /s",
            )


def _workspace(folder: Path) -> Workspace:
    spec = PhantomSpec(n_patients=12, size_px=256)
    write_phantom(folder / "phantom", spec)
    labels = folder / "phantom" / "stage_2_train.csv"
    for size_px in (64, 256):
        prepare(PrepareSpec(dicom_dir=folder / "phantom", labels=labels, out=folder / "work", size_px=size_px, k=2))
    return Workspace(folder / "work")


if __name__ == "__main__":
    for row in measure():
        print(*row, sep="  ")
