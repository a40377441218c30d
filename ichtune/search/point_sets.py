"""Searchers that look at no result: a grid, and a quasi-random sequence. Point ``n`` is a function of ``n`` alone."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ichtune.errors import ConfigError
from ichtune.space import Space, propose
from ichtune.space.domains import Choice, Range, Real
from ichtune.space.proposals import draw_values, option_ranges

#: Values by flat name, as a chooser answers them.
Point = dict[str, Any]


def grid_points(space: Space) -> Iterator[Point]:
    """Yield every point of a space, conditions taken into account; the last parameter of the file varies fastest.

    Points that break a constraint, or whose values exclude each other, are left out.

    Raises:
        ConfigError: a parameter is continuous.
    """
    for name, domain in _dimensions(space):
        if isinstance(domain, Real) and domain.step is None:
            raise ConfigError(
                f"{name}: a grid needs choices or a step, got all numbers from {domain.low:g} to {domain.high:g}"
            )
    path: list[list[int]] = []
    while True:
        chooser = _GridChooser(path)
        if _is_possible(space, chooser):
            yield chooser.point
        path = chooser.path
        while path and path[-1][0] + 1 == path[-1][1]:
            path.pop()
        if not path:
            return
        path[-1][0] += 1


def _is_possible(space: Space, chooser: "_GridChooser") -> bool:
    try:
        return propose(space, chooser).violated is None
    except ConfigError:
        return False


class _GridChooser:
    """Answers by a path of choice numbers, and with first choices beyond its end; remembers how many there were."""

    def __init__(self, path: list[list[int]]) -> None:
        self.path: list[list[int]] = []
        self._asked = path
        self.point: Point = {}

    def _index(self, n: int) -> int:
        place = len(self.path)
        index = self._asked[place][0] if place < len(self._asked) else 0
        self.path.append([index, n])
        return index

    def categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.point[name] = choices[self._index(len(choices))]
        return self.point[name]

    def real(self, name: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        n = 1 if step is None else _n_steps(low, high, step)
        self.point[name] = float(min(high, low + (step or 0.0) * self._index(n)))
        return self.point[name]

    def integer(self, name: str, low: int, high: int, *, log: bool, step: int) -> int:
        self.point[name] = low + step * self._index((high - low) // step + 1)
        return self.point[name]


def _n_steps(low: float, high: float, step: float) -> int:
    return int(np.floor((high - low) / step + 1e-9)) + 1


def grid_point(space: Space, number: int) -> Point | None:
    """Return point ``number`` (from 0) of the grid; None beyond its end."""
    return next(islice(grid_points(space), number, None), None)


def quasi_random_point(space: Space, number: int, seed: int, fixed: Mapping[str, Any] | None = None) -> Point:
    """Return point ``number`` of a scrambled Halton sequence that has a dimension for every number and choice.

    Where a parameter is inactive its dimension is left unused, so that points do not move with conditions.

    Args:
        space: the search space.
        number: of the point, from 0.
        seed: of the scrambling.
        fixed: values by flat name that are given.

    Source: Owen, A randomized Halton algorithm in R, 2017, as in ``scipy.stats.qmc.Halton``.
    """
    from scipy.stats.qmc import Halton

    names = [name for name, _ in _dimensions(space)]
    sequence = Halton(max(1, len(names)), scramble=True, rng=np.random.default_rng(seed))
    sequence.fast_forward(number)
    chooser = _ShareChooser(dict(zip(names, sequence.random(1)[0], strict=False)), fixed or {})
    draw_values(space, chooser)
    return chooser.point


def _dimensions(space: Space) -> Iterator[tuple[str, Range | Choice]]:
    """Yield every choice and every searched number by flat name, active or not."""
    for parameter in space.ordered:
        domain = parameter.domain
        if isinstance(domain, Range):
            yield parameter.key, domain
            continue
        if len(domain.options) > 1:
            yield parameter.key, domain
        for option in domain.options:
            yield from option_ranges(parameter.key, domain, option).items()


class _ShareChooser:
    """Answers each question by a share in [0, 1) of its range, unless the answer is given."""

    def __init__(self, shares: dict[str, float], fixed: Mapping[str, Any]) -> None:
        self._shares, self._fixed = shares, fixed
        self.point: Point = {}

    def _answer(self, name: str, value: Any) -> Any:
        self.point[name] = self._fixed.get(name, value)
        return self.point[name]

    def categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._answer(name, choices[int(self._shares[name] * len(choices))])

    def real(self, name: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        share = self._shares[name]
        if step is not None:
            value = low + step * int(share * _n_steps(low, high, step))
        elif log:
            value = low * (high / low) ** share
        else:
            value = low + share * (high - low)
        return float(self._answer(name, float(min(high, max(low, value)))))

    def integer(self, name: str, low: int, high: int, *, log: bool, step: int) -> int:
        share = self._shares[name]
        if log:
            edges = np.log([low - 0.5, high + 0.5])
            value = round(float(np.exp(edges[0] + share * (edges[1] - edges[0]))))
        else:
            value = low + step * int(share * ((high - low) // step + 1))
        return int(self._answer(name, int(min(high, max(low, value)))))
