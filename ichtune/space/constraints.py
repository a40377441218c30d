"""What must hold between the parameters of a space, as data: recipes that break it are never tried."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ichtune.space.conditions import Condition, Test, is_active, parents_of
from ichtune.space.domains import label_of


@dataclass(frozen=True)
class Constraint:
    """Tests that must hold together, wherever a condition holds.

    An inactive parameter decides nothing: a test on it is left out, and a condition on it does not hold.

    Attributes:
        must: the tests, each of which must hold.
        when: where they must; empty is everywhere.
    """

    must: tuple[Test, ...]
    when: Condition = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that it asks about, each once, in order."""
        return parents_of((self.must, *self.when))

    def violated(self, values: Mapping[str, Any]) -> str | None:
        """Return in one sentence what does not hold; None where all does.

        Args:
            values: plain value of each active parameter, by key.

        Example:
            >>> few = Constraint((Test("batch_size", "le", 16),), ((Test("image_px", "ge", 384),),))
            >>> few.violated({"batch_size": 32, "image_px": 512})
            'batch_size must be at most 16 where image_px is at least 384, got batch_size 32 and image_px 512'
            >>> few.violated({"batch_size": 32, "image_px": 256})
        """
        if not is_active(self.when, values):
            return None
        for test in self.must:
            if test.is_decided(values) and not test.holds(values):
                asked = dict.fromkeys((*test.parameters, *parents_of(self.when)))
                got = " and ".join(f"{name} {label_of(values[name])}" for name in asked if name in values)
                return f"{test.parent} must be {test.wanted}{self._where()}, got {got}"
        return None

    def _where(self) -> str:
        alternatives = [" and ".join(f"{test.parent} is {test.wanted}" for test in tests) for tests in self.when]
        return f" where {', or '.join(alternatives)}" if alternatives else ""
