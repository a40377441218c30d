"""Members that say nearly the same: two of them are one voice that is heard twice.

Dimension key: M members, N slices, R slices that are looked at, L labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.blenders.logits import to_logits

#: Correlation of log odds above which two members are called alike.
ALIKE = 0.9999
#: Slices that are looked at, evenly spaced.
MAX_ROWS = 20_000


@dataclass(frozen=True)
class Alike:
    """Two members, and the correlation of their log odds over slices and labels."""

    recipe_id: str
    other: str
    correlation: float

    def text(self, names: Mapping[str, str]) -> str:
        """One line for people."""
        return (
            f"{names.get(self.recipe_id, self.recipe_id)} and {names.get(self.other, self.other)} say nearly the same "
            f"(log odds correlate to {self.correlation:.6f}): they count as two, and are hardly more than one"
        )


def find_alike(recipe_ids: Sequence[str], p_MNL: np.ndarray) -> tuple[Alike, ...]:
    """Return the pairs of members whose log odds correlate above ``ALIKE``, in the members' order.

    Each label's mean is taken out first, since rare and common labels alone make any two members correlate.

    Args:
        recipe_ids: the M members.
        p_MNL: probabilities (M, N, L).
    """
    step = -(-p_MNL.shape[1] // MAX_ROWS) or 1
    flat = np.stack([_without_mean(to_logits(p_NL[::step])) for p_NL in p_MNL])
    length_M = np.sqrt((flat**2).sum(axis=1))
    length_M[length_M < 1e-9 * np.sqrt(flat.shape[1])] = np.inf  # constants are like nothing
    correlation_MM = flat @ flat.T / np.outer(length_M, length_M)
    pairs = np.argwhere(np.triu(correlation_MM > ALIKE, k=1))
    return tuple(Alike(recipe_ids[a], recipe_ids[b], min(float(correlation_MM[a, b]), 1.0)) for a, b in pairs)


def _without_mean(z_RL: np.ndarray) -> np.ndarray:
    return np.asarray(z_RL - z_RL.mean(axis=0)).ravel()
