"""What ``ichtune audit`` shows: tables for the terminal, notes, and the same as plain values."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from ichtune.data.audit.leaks import LeakCheck, Split
    from ichtune.data.audit.near_duplicates import NearDuplicates
    from ichtune.data.cache.check import CacheCheck

PLURALS = {"patient": "patients", "study": "studies", "series": "series", "content": "identical pictures"}
_SHOWN_PAIRS = 10


@dataclass(frozen=True)
class AuditResult:
    """Everything that one audit found.

    Attributes:
        slices: the SliceTable.
        split: what was audited.
        checks: a line for each thing that must not straddle.
        caches: the state of each cache.
        near: near-duplicates; None where no pixels were read.
        pairs: the same with their sides.
        advice: what to do about leaks, in whole sentences.
    """

    slices: "pd.DataFrame"
    split: "Split"
    checks: tuple["LeakCheck", ...]
    caches: tuple["CacheCheck", ...]
    near: "NearDuplicates | None"
    pairs: "pd.DataFrame | None"
    advice: tuple[str, ...]

    def rates(self) -> "pd.DataFrame":
        """Slices and label rates of each fold."""
        from ichtune.data.folds import rates_by_fold

        is_usable = self.split.is_train | self.split.is_test
        return rates_by_fold(self.slices[is_usable], self.split.fold[is_usable], len(self.split.fold_names))


def checks_table(found: AuditResult) -> "Table":
    """Return what was compared and what straddles, as a table for the terminal."""
    from rich.table import Table

    table = Table(title=f"Audit of {found.split.name}", title_justify="left", box=None, pad_edge=False)
    table.add_column("what", no_wrap=True)
    table.add_column("across", no_wrap=True)
    for name in ("compared", "straddling", "slices"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("first examples", overflow="fold")
    for check in found.checks:
        leak = check.leak
        counts = (f"{leak.n_keys:,}", f"{leak.n_slices:,}", "\n".join(leak.examples)) if leak else ("0", "", "")
        table.add_row(PLURALS[check.kind], check.across, f"{check.n_keys:,}", *counts)
    return table


def rates_table(found: AuditResult) -> "Table":
    """Return slices and label rates of each fold, and how far they are from the mean, as a table for the terminal."""
    from rich.table import Table

    from ichtune.data.folds import rate_deviation
    from ichtune.labels import LABELS

    rates = found.rates()
    deviation = rate_deviation(rates)
    table = Table(title="Slices and label rates (%)", title_justify="left", box=None, pad_edge=False)
    for name in ("", *found.split.fold_names, "furthest off"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for text, column in (("patients", "n_patients"), ("labelled", "n"), ("unlabelled", "n_unlabelled")):
        table.add_row(text, *(f"{int(n):,}" for n in rates[column]))
    for label in LABELS:
        off = "" if deviation[label] != deviation[label] else f"{100 * deviation[label]:.1f} %"
        table.add_row(label, *("" if rate != rate else f"{100 * rate:.2f}" for rate in rates[label]), off)
    return table


def pairs_table(pairs: "pd.DataFrame") -> "Table":
    """Return the nearest pairs as a table for the terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("slice", "patient", "side", "slice", "patient", "side", "HU apart"):
        table.add_column(name, justify="right" if name == "HU apart" else "left", overflow="fold")
    for row in pairs.head(_SHOWN_PAIRS).itertuples():
        one = (str(row.image_id_a), str(row.patient_id_a), str(row.side_a))
        other = (str(row.image_id_b), str(row.patient_id_b), str(row.side_b))
        table.add_row(*one, *other, "identical" if row.is_identical else f"{row.difference_hu:.2f}")
    if len(pairs) > _SHOWN_PAIRS:
        table.add_row(f"and {len(pairs) - _SHOWN_PAIRS:,} more: --out writes them all")
    return table


def notes(found: AuditResult) -> list[str]:
    """Return what a person should know about how the proof was made, in whole sentences."""
    from ichtune.data.audit.near_duplicates import NEAR_HU

    slices, split, near = found.slices, found.split, found.near
    said = []
    n_blank = int(((slices["status"] == "ok") & slices["is_blank"]).sum())
    if n_blank:
        said.append(f"{n_blank:,} blank slices took no part in the comparison of pictures")
    if split.n_unusable:
        said.append(f"{split.n_unusable:,} listed slices cannot be used (refused or duplicates) and took no part")
    n_neither = int(((slices["status"] == "ok").to_numpy(bool) & ~split.is_train & ~split.is_test).sum())
    if n_neither:
        said.append(
            f"{n_neither:,} slices are neither training nor test slices: see the label issues of ichtune inspect"
        )
    if not (split.is_test.any() and split.is_train.any()):
        said.append("there are not both training and test slices, so train and test were not compared")
    if len(split.fold_names) < 2:
        said.append("there are fewer than two folds, so folds were not compared")
    if near is None:
        said.append("near-duplicates were left out: no pixels were read")
        return said
    said.append(
        f"near-duplicates differ by at most {NEAR_HU:g} HU in the mean inside the head; they are worth a look, and no "
        "leak by themselves"
    )
    if near.n_dropped or near.n_crowded:
        said.append(
            f"not every candidate was looked at: {near.n_dropped:,} pairs beyond the limit, {near.n_crowded:,} slices "
            "with too many that resemble them"
        )
    return said


def audit_json(found: AuditResult) -> dict[str, Any]:
    """Return all of it as plain values, for scripts."""
    from ichtune.data.folds import rate_deviation

    rates = found.rates() if found.split.fold_names else None
    return {
        "split": found.split.name,
        "is_clean": not any(check.leak for check in found.checks) and not any(c.problem for c in found.caches),
        "checks": [
            {
                "what": check.kind,
                "across": check.across,
                "n_compared": check.n_keys,
                "n_straddling": check.leak.n_keys if check.leak else 0,
                "n_slices": check.leak.n_slices if check.leak else 0,
                "examples": check.leak.examples if check.leak else (),
            }
            for check in found.checks
        ],
        "advice": found.advice,
        "folds": [] if rates is None else rates.assign(fold=list(found.split.fold_names)).to_dict("records"),
        "furthest_from_mean": {} if rates is None else rate_deviation(rates).to_dict(),
        "caches": [cache.__dict__ for cache in found.caches],
        "near_duplicates": _near_json(found),
        "notes": notes(found),
    }


def _near_json(found: AuditResult) -> dict[str, Any] | None:
    if found.near is None or found.pairs is None:
        return None
    counts = {name: value for name, value in found.near.__dict__.items() if name != "pairs"}
    return {**counts, "pairs": found.pairs.to_dict("records")}
