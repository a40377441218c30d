"""Proof that a split leaks nothing: what straddles folds, or train and test, by patient, study, series and content."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ichtune.data.patient_groups import link_keys

#: What must lie on one side, in the order in which it is reported.
KINDS = ("patient", "study", "series", "content")
FOLDS, TRAIN_TEST = "folds", "train/test"
N_EXAMPLES = 3
#: Stands for a slice without a fold.
NO_FOLD = -1


@dataclass(frozen=True)
class Split:
    """Where each row of a SliceTable lies.

    Attributes:
        name: what the split is called in messages: the workspace's plan, or a file.
        fold: int64 (n,), index into ``fold_names``; ``NO_FOLD`` where a slice lies in none.
        is_train: bool (n,).
        is_test: bool (n,); rows that are not usable are neither train nor test.
        fold_names: what each fold is called.
        n_unusable: listed slices that the workspace cannot use, refused ones and duplicates.
    """

    name: str
    fold: np.ndarray
    is_train: np.ndarray
    is_test: np.ndarray
    fold_names: tuple[str, ...]
    n_unusable: int = 0


@dataclass(frozen=True)
class Leak:
    """One kind of thing that lies on several sides.

    Attributes:
        kind: one of ``KINDS``.
        across: ``folds`` or ``train/test``.
        n_keys: how many patients, studies, series or contents straddle.
        n_slices: slices that belong to them.
        examples: the first ones, each with its sides and, for content, two slices.
    """

    kind: str
    across: str
    n_keys: int
    n_slices: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class LeakCheck:
    """One line of the proof: what was compared, and the leak if there is one."""

    kind: str
    across: str
    n_keys: int
    leak: Leak | None


def check_leaks(slices: pd.DataFrame, split: Split) -> tuple[LeakCheck, ...]:
    """Look for patients, studies, series and identical pixels on several sides of a split.

    Content is compared by its hash, over shape and every value in HU. Blank slices are left out of that: air looks
    the same in every head. Slices that cannot be used take no part.

    Args:
        slices: a SliceTable.
        split: where each of its rows lies.

    Returns:
        One check for each kind and each way to leak that the split allows.
    """
    ok = np.flatnonzero((slices["status"] == "ok").to_numpy(bool))
    usable = slices.iloc[ok]
    keys = {"patient": usable["patient_id"], **link_keys(usable)}
    fold, is_train, is_test = split.fold[ok], split.is_train[ok], split.is_test[ok]
    ways = []
    if len(split.fold_names) > 1:
        ways.append((FOLDS, fold, split.fold_names))
    if is_test.any() and is_train.any():
        side = np.where(is_test, 1, np.where(is_train, 0, NO_FOLD))
        ways.append((TRAIN_TEST, side, ("train", "test")))
    ids = usable["image_id"].to_numpy(object)
    return tuple(_check(kind, keys[kind], across, side, names, ids) for across, side, names in ways for kind in KINDS)


def _check(
    kind: str, keys: pd.Series, across: str, side: np.ndarray, side_names: tuple[str, ...], ids: np.ndarray
) -> LeakCheck:
    codes, names = pd.factorize(keys)
    taken = np.flatnonzero((codes >= 0) & (side >= 0))
    codes, side, ids = codes[taken], side[taken].astype(np.int64), ids[taken]
    least = np.full(len(names), np.iinfo(np.int64).max)
    most = np.full(len(names), -1)
    np.minimum.at(least, codes, side)
    np.maximum.at(most, codes, side)
    leaking = np.flatnonzero((most >= 0) & (least < most))
    n_keys = int((most >= 0).sum())
    if not len(leaking):
        return LeakCheck(kind, across, n_keys, None)
    is_leaking = np.isin(codes, leaking)
    leaking = leaking[np.argsort(names[leaking].astype(str))]
    examples = tuple(
        _example(kind, str(names[code]), codes == code, side, side_names, ids) for code in leaking[:N_EXAMPLES]
    )
    return LeakCheck(kind, across, n_keys, Leak(kind, across, len(leaking), int(is_leaking.sum()), examples))


def _example(
    kind: str, name: str, is_member: np.ndarray, side: np.ndarray, side_names: tuple[str, ...], ids: np.ndarray
) -> str:
    sides, firsts = np.unique(side[is_member], return_index=True)
    members = ids[is_member]
    if kind == "content":
        return ", ".join(
            f"{members[first]} in {side_names[at]}" for at, first in zip(sides[:3], firsts[:3], strict=True)
        )
    return f"{name} in {', '.join(side_names[at] for at in sides[:5])}{', ...' if len(sides) > 5 else ''}"


def leaks_of(checks: tuple[LeakCheck, ...]) -> list[Leak]:
    """Return the checks that failed."""
    return [check.leak for check in checks if check.leak is not None]


def advice(leaks: list[Leak], is_plan: bool) -> list[str]:
    """Say in whole sentences what to do about leaks, none where there are none.

    Args:
        is_plan: whether the workspace's own plan leaks, not a split that was handed over.
    """
    sentences = []
    if any(leak.across == FOLDS for leak in leaks):
        sentences.append(
            "Run `ichtune prepare` again: it keeps patients, and patients linked by study, series or pixels, together."
            if is_plan
            else "Make the split by patient, and keep patients together that share a study, a series or identical "
            "pixels; the workspace's folds.parquet is such a split."
        )
    kinds = {leak.kind for leak in leaks if leak.across == TRAIN_TEST}
    if kinds - {"content"}:
        sentences.append(
            "Whatever is on both sides of train and test makes a test score too good: leave the unlabelled slices of "
            "such patients out of the folder, or label them, and run `ichtune prepare` again."
            if is_plan
            else "Put all slices of such patients on one side, train or test."
        )
    if kinds == {"content"}:
        sentences.append(
            "The same pixels are filed under two patients: leave one copy out, and run `ichtune prepare` again."
        )
    return sentences
