"""What is checked before a search spends anything: its space, its workspace and how the two fit."""

from collections.abc import Iterable

from ichtune.errors import ConfigError, DataError
from ichtune.search.levels import search_level
from ichtune.search.schedulers import find_scheduler
from ichtune.search.searchers import find_searcher
from ichtune.space import Space
from ichtune.training.fold_run import cache_to_read
from ichtune.workspace import Workspace


def check_space(workspace: Workspace, space: Space) -> None:
    """Refuse, before anything is spent, what would fail trial by trial.

    Raises:
        ConfigError: a name that no table knows, values that contradict each other, weights that do not fit, or folds
            that the workspace does not have; with its place in the file where there is one.
        DataError: pretrained weights that are not there, or runs to learn from.
    """
    search_level(space.level).check_space(workspace, space)
    with space.at("search", "algorithm"):
        find_searcher(space.search.algorithm)
    with space.at("search", "early_stop", "type"):
        find_scheduler(space.search.early_stop.type)
    plan, asked = workspace.fold_plan, space.folds
    if (asked.k not in (None, plan.k)) or (asked.seed not in (None, plan.seed)):
        raise ConfigError(
            f"space {space.name!r} asks for {asked.k} folds with seed {asked.seed}, but {workspace.layout.folds} has "
            f"{plan.k} with seed {plan.seed}; leave `folds` to `search_on` alone, or run `ichtune prepare ... "
            f"--folds {asked.k} --seed {asked.seed}`"
        )
    beyond = [fold for fold in asked.search_on if fold >= plan.k]
    if beyond:
        raise ConfigError(
            f"space {space.name!r}: search_on names folds {beyond}, but the workspace has 0..{plan.k - 1}"
        )


def check_data(workspace: Workspace, inputs: Iterable[tuple[int, str]]) -> None:
    """Refuse, before Ray is started, a workspace that some recipe could not be trained on.

    Args:
        workspace: prepared data.
        inputs: ``image_px`` and ``crop`` of the recipes.

    Raises:
        DataError: no labelled slices, slices of several sizes, or a crop that was not prepared; the message names
            the command that mends it.
    """
    if workspace.labelled.empty:
        raise DataError(
            f"workspace {workspace.layout.root} has no labelled slices to train on; run `ichtune prepare DICOM_DIR "
            f"--labels CSV --out {workspace.layout.root}`"
        )
    for image_px, crop in dict.fromkeys(inputs):
        cache_to_read(workspace, image_px, crop)


def inputs_of(space: Space) -> list[tuple[int, str]]:
    """Return for every crop that a space may choose the largest ``image_px`` that it may ask for.

    Nothing is returned for recipes that read no pixels.
    """
    return search_level(space.level).inputs_of(space)
