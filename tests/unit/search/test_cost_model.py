import math

import numpy as np
import pytest

from ichtune.recipe import Recipe
from ichtune.search.cost_model import (
    REACH,
    CostModel,
    n_epochs_spared,
    n_folds_of,
    saved_by_stopping,
    seconds_of,
    time_left_s,
)
from ichtune.search.ledger import FAILED, FINISHED, INTERRUPTED, STOPPED, TrialRecord

SPEED = {"tiny_convnet": 0.2, "resnet18": 1.0, "resnet34": 1.8, "convnext_tiny": 3.5}


def truth_s(recipe):
    """Seconds an epoch of a made-up machine."""
    compiled = 0.8 if recipe.compile else 1.0
    return 1e-4 * SPEED[recipe.architecture] * recipe.image_px**1.7 * (1 + 0.1 * recipe.n_channels) * compiled


def trial(number, recipe, seconds, status=FINISHED, rungs=None):
    curve = [{"epoch": e, "seconds": s, "val_weighted_log_loss": 0.2} for e, s in enumerate(seconds, start=1)]
    for epoch, branch_epochs in (rungs or {}).items():
        curve[epoch - 1] |= {"rung": epoch, "rung_loss": 0.2, "cost": 1.0 + branch_epochs}
    return TrialRecord(number, {}, {}, recipe, status, "", curve)


def random_recipe(rng):
    return Recipe(
        architecture=str(rng.choice(list(SPEED))),
        image_px=int(rng.choice([64, 128, 224])),
        neighbours=int(rng.integers(3)),
        compile=bool(rng.integers(2)),
        lr=float(10 ** rng.uniform(-4, -2)),
        epochs=9,
    )


def random_trials(n, seed=0, noise=0.15, warm_up=4.0):
    rng = np.random.default_rng(seed)
    trials = []
    for number in range(n):
        recipe = random_recipe(rng)
        seconds = truth_s(recipe) * np.exp(noise * rng.standard_normal(int(rng.choice([1, 3, 9]))))
        seconds[0] *= warm_up
        trials.append(trial(number, recipe, seconds.tolist()))
    return trials


def factors(model, n=100):
    """By what factor the model misses recipes that it has not seen."""
    rng = np.random.default_rng(99)
    recipes = [random_recipe(rng) for _ in range(n)]
    return np.exp([abs(math.log(model.seconds_per_epoch(r) / truth_s(r))) for r in recipes])


def test_before_any_epoch_nothing_is_said():
    model = CostModel.fit([trial(0, Recipe(), [], FAILED)])
    assert model.seconds_per_epoch(Recipe()) is None
    assert model.seconds_left(Recipe(), 3) is None
    assert model.typical_error is None
    assert time_left_s([], n_trials=4, n_concurrent=1) is None


def test_a_recipe_that_was_trained_costs_the_median_of_its_epochs():
    recipe = Recipe()
    model = CostModel.fit([trial(0, recipe, [2.0, 2.0, 30.0]), trial(1, Recipe(image_px=32), [50.0] * 3)])
    assert model.seconds_per_epoch(recipe) == 2.0
    assert model.seconds_left(recipe, 2.5) == 5.0


@pytest.mark.parametrize(("seconds", "each"), [([9.0, 2.0, 2.0], 2.0), ([2.2, 2.0, 2.0], 2.0), ([9.0, 2.0], 2.0)])
def test_a_first_epoch_that_warms_up_is_left_out(seconds, each):
    assert CostModel.fit([trial(0, Recipe(), seconds)]).seconds_per_epoch(Recipe()) == each


def test_a_lone_first_epoch_is_divided_by_what_warming_up_takes_elsewhere():
    others = [trial(n, Recipe(image_px=64 + n), [12.0, 3.0, 3.0]) for n in range(3)]
    lone = Recipe(image_px=128)
    model = CostModel.fit([*others, trial(3, lone, [40.0])])
    assert model.seconds_per_epoch(lone) == pytest.approx(10.0)


def test_it_learns_what_makes_an_epoch_dear():
    errors = {n: np.median(factors(CostModel.fit(random_trials(n)))) - 1 for n in (5, 20, 80)}
    assert errors[80] < errors[20] < 0.25
    assert errors[80] < 0.1


def test_few_trials_give_sane_answers():
    for seed in range(10):
        assert factors(CostModel.fit(random_trials(3, seed))).max() < 40
    one = CostModel.fit([trial(0, Recipe(image_px=64), [2.0] * 3)])
    assert 2.0 < one.seconds_per_epoch(Recipe(image_px=128)) < 8.0
    assert one.seconds_per_epoch(Recipe(image_px=64, lr=1e-5)) == pytest.approx(2.0)


def test_no_answer_lies_far_outside_what_was_seen():
    model = CostModel.fit([trial(n, Recipe(image_px=64 + 8 * n), [1.0 + n] * 3) for n in range(4)])
    assert model.seconds_per_epoch(Recipe(image_px=2048)) == 4.0 * REACH
    assert model.seconds_per_epoch(Recipe(image_px=16)) >= 1.0 / REACH


def test_an_unseen_architecture_costs_what_the_mean_one_does():
    seen = [trial(n, Recipe(architecture=name), [s] * 3) for n, (name, s) in enumerate((("a", 1.0), ("b", 4.0)))]
    assert CostModel.fit(seen).seconds_per_epoch(Recipe(architecture="c")) == pytest.approx(2.0, rel=0.01)


def test_one_trial_on_a_busy_machine_changes_little():
    trials = random_trials(30)
    busy = [trial(30, Recipe(architecture="resnet18", image_px=224, epochs=9), [900.0] * 5)]
    before, after = CostModel.fit(trials), CostModel.fit([*trials, *busy])
    recipe = Recipe(architecture="resnet18", image_px=224, lr=0.5)
    assert after.seconds_per_epoch(recipe) == pytest.approx(before.seconds_per_epoch(recipe), rel=0.25)


def test_the_error_told_is_that_of_recipes_left_out():
    assert CostModel.fit(random_trials(2)).typical_error is None
    model = CostModel.fit(random_trials(60, noise=0.0, warm_up=1.0))
    assert model.typical_error < 0.05
    trials = random_trials(60, noise=0.3)
    told = CostModel.fit(trials).typical_error
    left_out = [CostModel.fit(trials[:n] + trials[n + 1 :]) for n in range(len(trials))]
    seen = CostModel.fit(trials).seen
    errors = [
        abs(math.log(m.seconds_per_epoch(t.recipe) / seen[t.recipe])) for m, t in zip(left_out, trials, strict=True)
    ]
    assert told == pytest.approx(math.expm1(np.median(errors)), rel=0.15)


def test_judging_makes_an_epoch_dearer_but_not_the_recipe():
    judged = trial(0, Recipe(), [2.0, 2.0, 3.0], rungs={3: 0.5})
    assert CostModel.fit([judged]).seconds_per_epoch(Recipe()) == 2.0
    assert seconds_of(judged) == 7.0
    assert seconds_of(trial(0, Recipe(), [])) == 0.0


def test_an_epoch_that_says_no_seconds_is_taken_for_a_typical_one():
    told = trial(0, Recipe(), [2.0, math.nan, 2.0, math.nan], rungs={4: 0.5})
    assert seconds_of(told) == 2 * 2.0 + 2.0 + 1.5 * 2.0


def test_an_epoch_of_fewer_patients_is_a_part_of_a_whole_one():
    cheap = trial(0, Recipe(), [0.5, 0.5])
    for epoch in cheap.curve:
        epoch["cost"] = 0.25
    assert CostModel.fit([cheap]).seconds_per_epoch(Recipe()) == 2.0


def test_a_duplicate_costs_nothing_and_teaches_nothing():
    copied = trial(1, Recipe(image_px=32), [99.0] * 3)
    copied.duplicate_of, copied.from_search = 4, "earlier"
    assert seconds_of(copied) == 0.0
    assert CostModel.fit([copied]).seconds_per_epoch(Recipe()) is None
    assert n_epochs_spared(copied) == 0


def test_a_stopped_trial_would_have_gone_on_to_the_end_of_its_recipe():
    recipe = Recipe(epochs=9)
    records = [
        trial(0, recipe, [2.0] * 9, rungs={1: 0.5, 3: 0.5}),
        trial(1, recipe, [2.0] * 3, STOPPED, rungs={1: 0.5, 3: 0.5}),
        trial(2, recipe, [2.0], STOPPED, rungs={1: 0.5}),
        trial(3, recipe, [2.0], FAILED),
        trial(4, recipe, [2.0], INTERRUPTED),
    ]
    model = CostModel(seen={recipe: 2.0})
    saved = saved_by_stopping(records, model)
    assert (saved.n_trials, saved.n_epochs, saved.seconds) == (2, 5.0 + 7.5, 25.0)
    assert (saved.judged_epochs, saved.judged_seconds) == (1.0, 2.0)
    assert saved_by_stopping(records).n_epochs == saved.n_epochs
    assert saved_by_stopping([]).seconds is None


def test_a_trial_stopped_between_folds_was_spared_the_other_folds():
    records = [trial(n, Recipe(epochs=2), [2.0] * k, s) for n, k, s in ((0, 4, FINISHED), (1, 2, STOPPED))]
    for record in records:
        for epoch in record.curve:
            epoch["fold"] = (epoch["epoch"] - 1) // 2
    assert n_folds_of(records) == 2
    assert saved_by_stopping(records).n_epochs == 2
    assert saved_by_stopping(records).judged_epochs == 0


def test_time_left_is_the_work_that_is_left_shared_by_the_trials_at_a_time():
    recipe = Recipe(epochs=6)
    ended = [trial(n, recipe, [2.0] * 4) for n in range(2)]
    assert time_left_s(ended, n_trials=2, n_concurrent=2) == 0.0
    assert time_left_s(ended, n_trials=6, n_concurrent=2) == 4 * 4 * 2.0 / 2
    assert time_left_s(ended, n_trials=6, n_concurrent=2, expected_epochs_per_trial=1.5) == 4 * 1.5 * 2.0 / 2
    assert time_left_s(ended, n_trials=3, n_concurrent=2) == 4 * 2.0  # one trial cannot be shared


def test_a_running_trial_goes_on_as_long_as_those_that_came_as_far():
    recipe = Recipe(epochs=9)
    ended = [trial(0, recipe, [2.0], STOPPED), trial(1, recipe, [2.0] * 3, STOPPED), trial(2, recipe, [2.0] * 9)]
    running = trial(3, recipe, [2.0] * 2, INTERRUPTED)
    assert time_left_s([*ended, running], 4, 1) == 2.0 * (1 + 7) / 2
    alone = trial(0, recipe, [2.0] * 2, INTERRUPTED)
    assert time_left_s([alone], 1, 1) == 2.0 * 7
    judged = trial(0, recipe, [2.0] * 9, rungs={1: 1.0})
    assert time_left_s([judged, trial(1, recipe, [], INTERRUPTED)], 2, 1) == 20.0
    past = trial(3, recipe, [2.0] * 9, INTERRUPTED)
    assert time_left_s([*ended, past], 4, 1) == 0.0


def test_trials_that_are_trained_on_in_the_end_are_foreseen():
    recipe = Recipe(epochs=9)
    whole = trial(0, recipe, [2.0] * 9)
    stopped = [trial(n, recipe, [2.0] * n, STOPPED, rungs={n: 0.0}) for n in (1, 3, 4)]
    records = [whole, *stopped]
    assert time_left_s(records, 4, 1) == 0.0
    assert time_left_s(records, 4, 1, top=1) == 0.0
    assert time_left_s(records, 4, 1, top=2) == 2.0 * 5  # the one that came furthest
    assert time_left_s(records, 4, 2, top=3) == 2.0 * 6  # side by side
    assert time_left_s(records, 4, 1, top=9) == 2.0 * (5 + 6 + 8)
    trained_on = trial(4, recipe, [2.0] * 4, INTERRUPTED)
    trained_on.to_end = True
    assert time_left_s([*records[:3], trained_on], 4, 1, top=2) == 2.0 * 5
    assert time_left_s([*records[:3], trained_on], 4, 1, top=3) == 2.0 * (5 + 6)


def test_trials_that_will_finish_by_themselves_need_no_others():
    recipe = Recipe(epochs=9)
    records = [trial(0, recipe, [2.0] * 9), trial(1, recipe, [2.0] * 3, STOPPED, rungs={3: 0.0})]
    of_four = 2.0 * 4 * (9 + 3) / 2  # two of them finish
    assert time_left_s(records, 6, 1, top=3) == of_four
    assert time_left_s(records, 6, 1, top=4) == of_four + 2.0 * 6
