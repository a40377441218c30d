"""What a trial trains and where it is judged."""

from dataclasses import replace

import pytest

from ichtune.recipe import Recipe
from ichtune.search.stages import FOLD_RUNG, IMAGE_STEP_PX, SMALLEST_IMAGE_PX, plan_trial
from ichtune.space import FIDELITIES, EarlyStop

RECIPE = Recipe(architecture="tiny_convnet", image_px=224, epochs=9)
STOP = EarlyStop(type="asha", grace=1, max=9, factor=3)


def test_rungs_are_moments_of_one_run():
    plan = plan_trial(RECIPE, [0], STOP, [1, 3])

    (stage,) = plan.stages
    assert (stage.recipe, stage.rungs, stage.end_rung, stage.is_whole) == (RECIPE, ((1, 1), (3, 3)), None, True)
    assert plan.n_epochs == 9
    assert plan.rung_epochs == {1: 1, 3: 3}
    assert [plan.place(epoch).rung for epoch in (1, 2, 3, 9)] == [1, None, 3, None]
    assert plan.place(9).is_stage_end


@pytest.mark.parametrize("epochs", [1, 3, 4])
def test_a_short_recipe_is_not_judged_at_or_beyond_its_own_end(epochs):
    plan = plan_trial(replace(RECIPE, epochs=epochs), [0], STOP, [1, 3])

    assert plan.rung_epochs == {rung: rung for rung in (1, 3) if rung < epochs}
    short = plan_trial(replace(RECIPE, epochs=epochs), [0], replace(STOP, judge="short"), [1, 3])
    assert [stage.recipe.epochs for stage in short.stages] == [rung for rung in (1, 3) if rung < epochs] + [epochs]


def test_short_runs_are_complete_runs_before_the_whole_one():
    plan = plan_trial(replace(RECIPE, frozen_epochs=3, snapshots=4), [0], replace(STOP, judge="short"), [1, 3])

    assert [(s.recipe.epochs, s.recipe.frozen_epochs, s.recipe.snapshots) for s in plan.stages] == [
        (1, 0, 1),
        (3, 1, 3),
        (9, 3, 4),
    ]
    assert [s.end_rung for s in plan.stages] == [1, 3, None]
    assert [s.is_whole for s in plan.stages] == [False, False, True]
    assert {s.cost for s in plan.stages} == {1.0}
    assert plan.n_epochs == 13
    assert plan.rung_epochs == {1: 1, 3: 4}
    assert (plan.place(5).stage, plan.place(5).epoch, plan.place(5).rung) == (2, 1, None)


def test_smaller_images_cost_as_much_as_so_many_epochs():
    plan = plan_trial(RECIPE, [0], replace(STOP, fidelity="image_px"), [1, 3])

    sides = [s.recipe.image_px for s in plan.stages]
    assert sides == sorted(sides)
    assert sides[-1] == 224
    assert all(side % IMAGE_STEP_PX == 0 for side in sides)
    assert [s.recipe.epochs for s in plan.stages] == [9, 9, 9]
    for stage, rung in zip(plan.stages, (1, 3), strict=False):
        assert stage.cost * 9 == pytest.approx(rung, rel=0.3)


def test_images_are_no_smaller_than_networks_like_and_no_larger_than_asked():
    plan = plan_trial(replace(RECIPE, image_px=48), [0], replace(STOP, fidelity="image_px"), [1, 8])

    assert [s.recipe.image_px for s in plan.stages] == [SMALLEST_IMAGE_PX, 48], "the recipe itself is no rung"
    assert plan.rung_epochs == {1: 9}


@pytest.mark.parametrize(("image_px", "sides"), [(32, [32]), (64, [32, 64]), (224, [80, 128, 224])])
def test_no_run_of_images_of_one_size_is_trained_twice(image_px, sides):
    plan = plan_trial(replace(RECIPE, image_px=image_px), [0], replace(STOP, fidelity="image_px"), [1, 2, 3][::2])

    assert [s.recipe.image_px for s in plan.stages] == sides


def test_fewer_patients_are_a_share_of_the_same_recipe():
    plan = plan_trial(RECIPE, [0], replace(STOP, fidelity="patients"), [1, 3])

    assert [s.share for s in plan.stages] == pytest.approx([1 / 9, 3 / 9, 1.0])
    assert [s.cost for s in plan.stages] == pytest.approx([1 / 9, 3 / 9, 1.0])
    assert {s.recipe for s in plan.stages} == {RECIPE}
    assert [s.is_whole for s in plan.stages] == [False, False, True]


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_every_further_fold_comes_after_a_rung_of_its_own(fidelity):
    plan = plan_trial(RECIPE, [2, 0, 1], replace(STOP, fidelity=fidelity), [3])

    whole = [s for s in plan.stages if s.is_whole]
    assert [s.fold for s in whole] == [2, 0, 1]
    assert {s.fold for s in plan.stages if not s.is_whole} <= {2}
    assert [s.end_rung for s in whole] == [FOLD_RUNG, FOLD_RUNG + 1, None]
    assert [s.recipe for s in whole] == [RECIPE] * 3
    numbers = list(plan.rung_epochs)
    assert numbers == sorted(numbers) == [3, FOLD_RUNG, FOLD_RUNG + 1]
    assert plan.place(plan.n_epochs).rung is None


def test_beyond_the_end_there_is_no_place():
    with pytest.raises(IndexError, match="has 9 epochs, asked for epoch 10"):
        plan_trial(RECIPE, [0], STOP, []).place(10)


def test_every_epoch_lies_in_one_place_and_stages_follow_each_other():
    plan = plan_trial(RECIPE, [0, 1], replace(STOP, judge="short"), [1, 3])

    places = [plan.place(epoch) for epoch in range(1, plan.n_epochs + 1)]

    assert [(p.stage, p.epoch) for p in places] == [
        (number, epoch) for number, s in enumerate(plan.stages) for epoch in range(1, s.recipe.epochs + 1)
    ]
    assert [p.is_stage_end for p in places].count(True) == len(plan.stages)
