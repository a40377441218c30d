"""Drawing from a space at random."""

import math
import random
from collections.abc import Mapping
from typing import Any

from ichtune.errors import ConfigError
from ichtune.space.counting import space_size
from ichtune.space.model import Space
from ichtune.space.proposals import Proposal, propose

#: Random draws after which no further recipe is looked for.
N_TRIES = 2000


class RandomChooser:
    """Answers at random, evenly on each parameter's own scale; the same seed gives the same answers.

    Args:
        seed: of the draws.
        answers: answers that are fixed, by flat name.
    """

    def __init__(self, seed: int, answers: Mapping[str, Any] | None = None) -> None:
        self._random = random.Random(seed)
        self._answers = answers or {}

    def categorical(self, name: str, choices: tuple[str, ...]) -> str:
        """Return one of the labels."""
        drawn = self._random.choice(choices)
        return self._answers.get(name, drawn)

    def real(self, name: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        """Return a number in [low, high], on the grid that ``step`` makes from ``low`` where there is one."""
        if step is None:
            drawn = self._number(low, high, log)
        else:
            drawn = low + self._random.randint(0, round((high - low) / step)) * step
        return self._answers.get(name, drawn)

    def integer(self, name: str, low: int, high: int, *, log: bool, step: int) -> int:
        """Return a whole number in [low, high], on the grid that ``step`` makes from ``low``."""
        if log:
            drawn = min(max(round(self._number(low - 0.5, high + 0.5, log)), low), high)
        else:
            drawn = self._random.randrange(low, high + 1, step)
        return self._answers.get(name, drawn)

    def _number(self, low: float, high: float, log: bool) -> float:
        if not log:
            return self._random.uniform(low, high)
        return min(max(math.exp(self._random.uniform(math.log(low), math.log(high))), low), high)


def random_proposals(space: Space, n: int, seed: int) -> list[Proposal]:
    """Draw recipes at random, none of them twice and none that a constraint forbids.

    Args:
        space: the space.
        n: how many are wanted.
        seed: of the draws; the same seed gives the same recipes.

    Returns:
        Fewer than ``n`` where the space has no more, or ``N_TRIES`` draws found no more.
    """
    chooser = RandomChooser(seed)
    wanted = min(n, space_size(space).n)
    found: dict[str, Proposal] = {}
    for _ in range(N_TRIES):
        if len(found) >= wanted:
            break
        try:
            proposal = propose(space, chooser)
        except ConfigError:  # values that exclude each other between the corners that were tried
            continue
        if proposal.violated is None:
            found.setdefault(proposal.recipe.recipe_id, proposal)
    return list(found.values())
