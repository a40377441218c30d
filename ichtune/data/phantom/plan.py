"""Who is in a phantom: patients, their studies, what bleeds in each, the test set, the encodings.

Shares are met by quotas, not by chance, so that phantoms of different seeds are comparable and small ones
still show every subtype.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from ichtune.data.phantom.headers import ENCODINGS
from ichtune.labels import SUBTYPES

# Share of series (%) with exactly these subtypes. First letters: e epidural, p intraparenchymal, v
# intraventricular, a subarachnoid, d subdural. Fitted to the competition's series-level rates (any 41, p
# 24.6, a 18.2, d 17.6, v 17, e 1.6) starting from its image-level co-occurrences.
_LETTERS = dict(zip("epvad", SUBTYPES, strict=True))
_COMBINATIONS: dict[str, float] = {
    "p": 4.97,
    "d": 6.17,
    "a": 3.01,
    "v": 2.28,
    "pv": 6.07,
    "pa": 2.29,
    "pd": 1.50,
    "va": 0.97,
    "ad": 2.48,
    "vd": 0.30,
    "pva": 3.12,
    "pad": 2.28,
    "pvd": 0.63,
    "pvad": 3.10,
    "vad": 0.21,
    "e": 0.38,
    "ed": 0.39,
    "epa": 0.21,
    "ead": 0.21,
    "ep": 0.10,
    "epvad": 0.32,
    "": 59.0,
}
_STUDIES_PER_PATIENT = {1: 0.895, 2: 0.075, 3: 0.018, 4: 0.008, 5: 0.004}
_RARE_ENCODINGS_FROM_SERIES = 12
_N_TEST_FOR_ALL_SUBTYPES = 6


@dataclass(frozen=True)
class SeriesPlan:
    """One study with its one series: the subtypes that it shall show and its index into ``ENCODINGS``."""

    patient: int
    study: int
    subtypes: frozenset[str]
    encoding: int
    is_test: bool


def hashed_id(*parts: object, digits: int = 9) -> str:
    """An id of the competition's form, ``ID_`` and hexadecimal digits, unordered relative to its parts."""
    text = "/".join(str(p) for p in parts)
    return "ID_" + hashlib.sha256(text.encode()).hexdigest()[:digits]


def apportion(n: int, shares: list[float]) -> list[int]:
    """Split ``n`` by shares into whole numbers (largest remainder, ties to the first)."""
    total = sum(shares)
    exact = [n * s / total for s in shares]
    counts = [int(e) for e in exact]
    by_rest = sorted(range(len(shares)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_rest[: n - sum(counts)]:
        counts[i] += 1
    return counts


def _studies_of(n_patients: int, rng: np.random.Generator) -> list[int]:
    counts = apportion(n_patients, list(_STUDIES_PER_PATIENT.values()))
    n_studies = [k for k, c in zip(_STUDIES_PER_PATIENT, counts, strict=True) for _ in range(c)]
    if n_patients >= 4 and max(n_studies) == 1:
        n_studies[-1] = 2
    return [n_studies[i] for i in rng.permutation(n_patients).tolist()]


def _combinations(n_series: int, n_epidural: int) -> list[frozenset[str]]:
    """The multiset of subtype combinations of a phantom, with at least ``n_epidural`` epidural series."""
    keys = list(_COMBINATIONS)
    counts = dict(zip(keys, apportion(n_series, list(_COMBINATIONS.values())), strict=True))
    add = ["e", "ed", "epa", "ead"]
    while sum(c for k, c in counts.items() if "e" in k) < n_epidural:
        key = add[sum(counts[k] for k in add) % len(add)]
        donor = max((k for k in keys if "e" not in k), key=lambda k: (bool(k) and counts[k] > 1, counts[k]))
        counts[key] += 1
        counts[donor] -= 1
    return [frozenset(_LETTERS[x] for x in k) for k in keys for _ in range(counts[k])]


def _deal(n_studies: list[int], pool: list[frozenset[str]], rng: np.random.Generator) -> list[list[frozenset[str]]]:
    """Deal combinations to patients; the later studies of a patient resemble the first one.

    Epidural bleeds are so few that no patient gets two, if possible.
    """
    rest = [pool[i] for i in rng.permutation(len(pool)).tolist()]
    dealt: list[list[frozenset[str]]] = [[] for _ in n_studies]
    rare = SUBTYPES[0]
    for patient in sorted(range(len(n_studies)), key=lambda i: -n_studies[i]):
        for study in range(n_studies[patient]):
            pick = 0
            if study:
                first = dealt[patient][0]
                pick = min(range(len(rest)), key=lambda i: (rare in rest[i], len(rest[i] ^ first), i))
            dealt[patient].append(rest.pop(pick))
    return dealt


def _choose_test(dealt: list[list[frozenset[str]]], fraction: float, rng: np.random.Generator) -> set[int]:
    """Patients of the test set, spread evenly over rarest subtypes and numbers of labels."""
    n_test = round(len(dealt) * fraction)
    by_rarity = ("epidural", "intraventricular", "subdural", "subarachnoid", "intraparenchymal", "")

    def kind(patient: int) -> tuple[int, int]:
        shown = frozenset().union(*dealt[patient])
        rarest = next(i for i, s in enumerate(by_rarity) if s in shown or not s)
        return rarest, -sum(len(s) for s in dealt[patient])

    order = sorted(rng.permutation(len(dealt)).tolist(), key=kind)
    start = float(rng.random())
    test = {order[min(len(order) - 1, int((i + start) * len(order) / n_test))] for i in range(n_test)}
    rare = [p for p in order if kind(p)[0] == 0]
    if n_test >= _N_TEST_FOR_ALL_SUBTYPES and rare and not test & set(rare):
        test.remove(max(test, key=order.index))
        test.add(rare[0])
    return test


def _complete(dealt: list[list[frozenset[str]]], group: list[int]) -> None:
    """Give every subtype that a group of patients lacks to one of its series, in place."""
    for subtype in SUBTYPES:
        series = [(p, s) for p in group for s in range(len(dealt[p]))]
        if not series or any(subtype in dealt[p][s] for p, s in series):
            continue
        p, s = min(series, key=lambda ps: (not dealt[ps[0]][ps[1]], len(dealt[ps[0]][ps[1]])))
        dealt[p][s] = dealt[p][s] | {subtype}


def _encodings(n_series: int, broken_rate: float, rng: np.random.Generator) -> list[int]:
    usual = sum(e.train_share for e in ENCODINGS if not e.broken)
    n_broken = sum(e.broken for e in ENCODINGS)
    shares = [broken_rate / n_broken if e.broken else (1.0 - broken_rate) * e.train_share / usual for e in ENCODINGS]
    counts = apportion(n_series, shares)
    if n_series >= _RARE_ENCODINGS_FROM_SERIES:
        for i, e in enumerate(ENCODINGS):
            if not counts[i] and (broken_rate > 0 or not e.broken):
                counts[counts.index(max(counts))] -= 1
                counts[i] += 1
    order = [i for i, c in enumerate(counts) for _ in range(c)]
    return [order[i] for i in rng.permutation(n_series).tolist()]


def plan_series(n_patients: int, test_fraction: float, broken_12bit_rate: float, seed: int) -> tuple[SeriesPlan, ...]:
    """Plan every series of a phantom.

    Args:
        n_patients: patients over train and test.
        test_fraction: share of patients in the test set.
        broken_12bit_rate: share of series with the broken 12-bit encodings.
        seed: the phantom's seed.

    Returns:
        Series, patient by patient.
    """
    rng = np.random.default_rng([seed, 0xC7])
    n_studies = _studies_of(n_patients, rng)
    n_series = sum(n_studies)
    n_epidural = 1 if n_patients < 24 else 2 if n_patients < 60 else 4
    dealt = _deal(n_studies, _combinations(n_series, min(n_epidural, n_series)), rng)
    test = _choose_test(dealt, test_fraction, rng)
    _complete(dealt, [p for p in range(n_patients) if p not in test])
    if len(test) >= _N_TEST_FOR_ALL_SUBTYPES:
        _complete(dealt, sorted(test))
    encodings = iter(_encodings(n_series, broken_12bit_rate, rng))
    return tuple(
        SeriesPlan(patient, study, subtypes, next(encodings), patient in test)
        for patient, studies in enumerate(dealt)
        for study, subtypes in enumerate(studies)
    )
