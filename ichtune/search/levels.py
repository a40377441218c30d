"""What a search does in another way for recipes of another level, behind one seam.

Everything else in this room asks no recipe of which level it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ichtune.second_level_recipe import AnyRecipe
from ichtune.space import Space
from ichtune.space.levels import level_of_recipe
from ichtune.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from ichtune.search.stages import Stage

#: Key of a search's identity that holds the runs that it learns from.
FIRST_LEVEL = "first_level"
R = TypeVar("R", bound=AnyRecipe)


class SearchLevel(ABC, Generic[R]):
    """One level, as a search needs it."""

    #: Command of `ichtune` that turns winners into runs, and a shipped space.
    command: str
    example: str
    #: What ``epoch_s`` measures, in words.
    timed: str

    def settled(self, workspace: Workspace, space: Space) -> Space:
        """Return the space with all that the workspace decides made explicit; what it reads of other runs is here then.

        Raises:
            DataError: what its recipes learn from is not there.
        """
        return space

    @abstractmethod
    def check_space(self, workspace: Workspace, space: Space) -> None:
        """Refuse what would fail trial by trial: unknown names, values that contradict each other, missing sources.

        Raises:
            ConfigError: with its place in the file where there is one.
            DataError: something that recipes start or learn from is not there.
        """

    def inputs_of(self, space: Space) -> list[tuple[int, str]]:
        """Return ``image_px`` and ``crop`` of the pixels that recipes of a space read; none by default."""
        return []

    def identity(self, workspace: Workspace, space: Space) -> Mapping[str, Any]:
        """Return what must not change between two runs of a search beside space, folds and data."""
        return {}

    def pixels(self, recipes: Collection[R]) -> frozenset[tuple[int, str]]:
        """Return ``image_px`` and ``crop`` of the pixels that some recipes read; none by default."""
        return frozenset()

    @abstractmethod
    def open_run(self, workspace: Workspace, stage: "Stage", device: "torch.device") -> Any:
        """Bring here what a stage of a trial learns from and open its run.

        Returns:
            What trains it: ``run_epoch``, ``epoch``, ``history``, ``finished``, ``notes``, ``save`` and ``load``.
        """

    @abstractmethod
    def epoch_s(self, workspace: Workspace, recipe: R, fold: int) -> float:
        """Measure on this machine, shortly, what an epoch of training and validation takes, in seconds."""

    @abstractmethod
    def unlike(self, recipe: R) -> tuple[object, ...]:
        """Return what decides most of what an epoch costs: of each such kind one recipe is timed."""


#: Module and class of each level, by its number.
_LEVELS = {1: ("first_level", "FirstLevel"), 2: ("second_level", "SecondLevel")}


def search_level(number: int) -> SearchLevel[Any]:
    """Return a level by its number."""
    module, name = _LEVELS[number]
    kind: type[SearchLevel[Any]] = getattr(import_module(f"ichtune.search.{module}"), name)
    return kind()


def search_level_of(recipe: AnyRecipe) -> SearchLevel[Any]:
    """Return the level of a recipe."""
    return search_level(level_of_recipe(recipe).number)
