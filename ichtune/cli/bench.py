"""ichtune bench: how fast this machine does what a recipe asks."""

from enum import StrEnum
from typing import Annotated

import typer

from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption, WorkOption


class What(StrEnum):
    """What can be timed."""

    TRAIN = "train"


def bench(
    what: Annotated[What, typer.Argument(help="What to time.")],
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe's YAML file or a shipped one's name.")],
    work: WorkOption = DEFAULT_WORK,
    fold: Annotated[int, typer.Option("--fold", min=0, help="The fold that is held out.")] = 0,
    batch: Annotated[int | None, typer.Option("--batch", min=2, help="Slices a step; the recipe's by default.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps a round.")] = 5,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds; medians are printed.")] = 5,
    cpu: Annotated[int | None, typer.Option("--cpu", min=1, help="Threads; all cores by default.")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Time a recipe's training beside the bare forward and backward passes of the same network on random tensors.

    Both run in turns in one process; the ratio says what reading, windows, augmentation and the optimizer cost. The
    whole network learns, from random weights, even where the recipe starts frozen. Nothing of the training is kept.

    Example: ichtune bench train --recipe exp_00 --batch 32
    """
    from dataclasses import asdict, replace

    import torch

    from ichtune.cli.console import note, result, result_json
    from ichtune.recipe_file import read_recipe
    from ichtune.training.checks import check_recipe
    from ichtune.training.fold_run import open_fold
    from ichtune.training.speed import measure_speed
    from ichtune.workspace import Workspace

    if cpu is not None:
        torch.set_num_threads(cpu)
    chosen = read_recipe(recipe)
    chosen = replace(
        chosen,
        batch_size=batch or chosen.batch_size,
        pretrained=False,
        warm_start="",
        pseudo_labels="",
        frozen_epochs=0,
    )
    check_recipe(chosen)
    run = open_fold(Workspace(work), chosen, fold).run
    name = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else f"{torch.get_num_threads()} threads"
    note(f"timing {what.value}: {chosen.summary}, batches of {chosen.batch_size}, {run.device.type} ({name})", quiet)
    speed = measure_speed(run, steps, rounds)
    if as_json:
        result_json({"summary": chosen.summary, "device": name, "batch_size": chosen.batch_size, **asdict(speed)})
        return
    memory = "" if speed.peak_memory_mb is None else f", at most {speed.peak_memory_mb:.0f} MB on the device"
    result(
        f"{speed.images_per_second:.1f} images/s beside {speed.bare_per_second:.1f} of the bare network: "
        f"{speed.ratio:.2f}{memory}"
    )
    for line in run.notes:
        note(line, quiet)
