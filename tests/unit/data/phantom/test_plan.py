import pytest

from ichtune.data.phantom.headers import ENCODINGS
from ichtune.data.phantom.plan import apportion, hashed_id, plan_series
from ichtune.labels import SUBTYPES


def test_apportion_meets_the_total_and_the_shares():
    assert apportion(10, [1, 1, 2]) == [3, 2, 5]
    assert apportion(7, [0.5, 0.5]) == [4, 3]
    assert sum(apportion(137, [0.3, 0.2, 0.0001, 7])) == 137


@pytest.mark.parametrize("seed", [1, 2, 7])
def test_a_large_plan_has_the_competitions_rates(seed):
    plan = plan_series(1000, 0.25, 0.02, seed)
    n = len(plan)
    assert n / 1000 == pytest.approx(1.15, abs=0.02)
    shares = {s: sum(s in p.subtypes for p in plan) / n for s in SUBTYPES}
    expected = dict(zip(SUBTYPES, (0.016, 0.246, 0.17, 0.182, 0.176), strict=True))
    for subtype in SUBTYPES:
        assert shares[subtype] == pytest.approx(expected[subtype], abs=0.006)
    assert sum(bool(p.subtypes) for p in plan) / n == pytest.approx(0.41, abs=0.006)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n_patients", [60, 120])
def test_from_sixty_patients_on_both_sets_show_every_subtype(seed, n_patients):
    plan = plan_series(n_patients, 0.25, 0.02, seed)
    for is_test, n_epidural in ((False, 3), (True, 1)):
        group = [p for p in plan if p.is_test == is_test]
        assert all(any(s in p.subtypes for p in group) for s in SUBTYPES)
        assert len({p.patient for p in group if "epidural" in p.subtypes}) >= n_epidural
    assert len({p.patient for p in plan if p.is_test}) == n_patients // 4


@pytest.mark.parametrize("n_patients", [2, 4, 8, 12, 30])
def test_small_plans_show_every_subtype_in_train(n_patients):
    plan = plan_series(n_patients, 0.25, 0.02, 7)
    assert {p.patient for p in plan} == set(range(n_patients))
    assert frozenset(SUBTYPES) == frozenset().union(*(p.subtypes for p in plan if not p.is_test))


def test_every_encoding_occurs_from_twelve_series_on():
    plan = plan_series(14, 0.25, 0.02, 7)
    assert {p.encoding for p in plan} == set(range(len(ENCODINGS)))
    unbroken = plan_series(14, 0.25, 0.0, 7)
    assert not any(ENCODINGS[p.encoding].broken for p in unbroken)


def test_a_patient_stays_on_one_side_and_some_have_several_studies():
    plan = plan_series(120, 0.25, 0.02, 7)
    sides = {p.patient: set() for p in plan}
    for p in plan:
        sides[p.patient].add(p.is_test)
    assert all(len(s) == 1 for s in sides.values())
    n_studies = [sum(p.patient == i for p in plan) for i in range(120)]
    assert min(n_studies) == 1
    assert 2 <= max(n_studies) <= 5


def test_ids_have_the_competitions_form():
    assert hashed_id(7, "image", 1).startswith("ID_")
    assert len(hashed_id(7, "image", 1)) == 12
    assert hashed_id(7, "image", 1) != hashed_id(8, "image", 1)
