"""BlendAccount: what is told of a blend wherever it goes: counts, losses, what each step gained, and what is suspected.

It holds nothing of single slices or patients, so that it may travel with a bundle.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ichtune.ensemble.blend import BLEND_ALONE
from ichtune.ensemble.comparisons import WAY
from ichtune.ensemble.ladder import BEST_SINGLE, EQUAL_MEAN, PRIOR, SINGLE_PREFIX, WITHOUT_SECOND_LEVEL

#: What a blend is compared with, in the order of the ladder.
RUNGS = {
    PRIOR: "the label rates alone",
    BEST_SINGLE: "the best single run",
    EQUAL_MEAN: "the equal mean of all runs",
    WITHOUT_SECOND_LEVEL: "the blend without the second level",
    BLEND_ALONE: "the blend without post-processing",
}


@dataclass(frozen=True)
class TrainedOn:
    """What is told of the training data: counts, and the blend's cross-fitted loss on it with its interval."""

    generated: bool
    n_patients: int
    n_slices: int
    crossfit_loss: float
    crossfit_low: float
    crossfit_high: float
    level: float


@dataclass(frozen=True)
class Compared:
    """Cross-fitted loss of the blend minus that of another rung, with its interval; below 0 is a gain."""

    rung: str
    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class AppliedStep:
    """A step of post-processing that is applied to a label, and the log loss that it took off unseen patients."""

    step: str
    label: str
    gain: float


@dataclass(frozen=True)
class Suspected:
    """A member whose scores are too good to be honest: which kind of suspicion, how many patients, which fold."""

    recipe_id: str
    kind: str
    n_patients: int
    fold: int | None


@dataclass(frozen=True)
class BlendAccount:
    """How a blend came to its loss.

    Attributes:
        losses: out-of-fold loss of each member by recipe_id, as far as it is kept.
        compared: the blend with the other rungs of the ladder.
        steps: of post-processing that are applied.
        suspected: members that may have seen labels which they predict.
        optimism: nats of luck that are expected in the lead of the best of ``n_candidates`` ways to blend; None where
            none was chosen.
    """

    losses: Mapping[str, float] = field(default_factory=dict)
    compared: tuple[Compared, ...] = ()
    steps: tuple[AppliedStep, ...] = ()
    suspected: tuple[Suspected, ...] = ()
    optimism: float | None = None
    n_candidates: int | None = None

    @classmethod
    def from_plain(cls, told: Mapping[str, Any]) -> Self:
        """Build one from what ``dataclasses.asdict`` made of it, read back from JSON.

        Raises:
            LookupError, TypeError, ValueError: it is something else.
        """
        optimism, n_candidates = told["optimism"], told["n_candidates"]
        return cls(
            losses={str(key): float(loss) for key, loss in dict(told["losses"]).items()},
            compared=tuple(Compared(**one) for one in told["compared"]),
            steps=tuple(AppliedStep(**one) for one in told["steps"]),
            suspected=tuple(Suspected(**one) for one in told["suspected"]),
            optimism=None if optimism is None else float(optimism),
            n_candidates=None if n_candidates is None else int(n_candidates),
        )


def account_of(about: Mapping[str, Any], ladder: list[Any]) -> BlendAccount:
    """Return the account of a blend.

    Args:
        about: its ``blend.json``.
        ladder: rows of the ``ladder.json`` that is about it.

    Raises:
        LookupError, TypeError: not such values.
    """
    singles = [row for row in ladder if isinstance(row, dict) and str(row.get("name")).startswith(SINGLE_PREFIX)]
    differences, optimism = about.get("differences") or {}, (about.get("optimism") or {}).get(WAY) or {}
    return BlendAccount(
        losses={str(row["recipe_id"]): float(row["oof_loss"]) for row in singles},
        compared=tuple(
            Compared(rung, *(float(differences[rung][key]) for key in ("estimate", "low", "high")))
            for rung in RUNGS
            if rung in differences
        ),
        steps=tuple(
            AppliedStep(gain["step"], gain["label"], float(gain["gain"]))
            for gain in about.get("post_processing") or []
            if gain["applied"]
        ),
        suspected=tuple(
            Suspected(one["recipe_id"], one["kind"], int(one["n_patients"]), one["fold"])
            for one in about.get("suspicions") or []
        ),
        optimism=optimism.get("estimate"),
        n_candidates=optimism.get("n_candidates"),
    )
