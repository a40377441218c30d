"""What makes an epoch dear: every feature has a belief, and is a plain number for every recipe of its level."""

import math

import pytest

from ichtune.recipe import Recipe
from ichtune.search.cost_model import CostModel, time_left_s
from ichtune.search.cost_terms import TERMS, terms_of
from ichtune.search.ledger import FINISHED, TrialRecord
from ichtune.second_level_recipe import MODELS, AnyRecipe, SecondLevelRecipe

RECIPES: list[AnyRecipe] = [
    Recipe(),
    Recipe(image_px=64, neighbours=2, pseudo_labels="0" * 12, slices_per_series=4, tta="flip"),
    *(SecondLevelRecipe(model=model) for model in MODELS),
    SecondLevelRecipe(members=("a" * 12, "b" * 12), embeddings=16, tta=False),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.summary)
def test_every_feature_has_a_belief(recipe: AnyRecipe) -> None:
    terms = terms_of(recipe)
    found = terms.features(recipe)

    assert set(terms.numbers) <= set(found)
    assert {name.split("=")[0] for name in set(found) - set(terms.numbers)} == set(terms.names)
    assert all(math.isfinite(value) for value in found.values())


def test_each_level_has_its_own() -> None:
    assert set(TERMS) == {Recipe, SecondLevelRecipe}
    assert terms_of(Recipe()).features is not terms_of(SecondLevelRecipe()).features


def trial(number: int, recipe: AnyRecipe, *seconds: float) -> TrialRecord:
    curve = [{"epoch": e, "seconds": s, "val_weighted_log_loss": 0.2} for e, s in enumerate(seconds, start=1)]
    return TrialRecord(number, {}, {}, recipe, FINISHED, "", curve)


def test_the_cost_of_a_second_level_is_learnt_from_its_trials() -> None:
    gru = [SecondLevelRecipe(model="gru", hidden=hidden, epochs=3) for hidden in (16, 32, 64)]
    trees = SecondLevelRecipe(model="hist_gradient_boosting", rounds=100)
    records = [trial(i, recipe, 8.0, 0.1 * recipe.hidden, 0.1 * recipe.hidden) for i, recipe in enumerate(gru)]
    model = CostModel.fit([*records, trial(3, trees, 60.0)])

    assert model.seconds_per_epoch(trees) == 60.0  # a fit has no first epoch that warms up for later ones
    assert model.seconds_per_epoch(gru[1]) == pytest.approx(3.2)
    wider = model.seconds_per_epoch(SecondLevelRecipe(model="gru", hidden=128, epochs=3))
    fewer = model.seconds_per_epoch(SecondLevelRecipe(model="hist_gradient_boosting", rounds=50))
    assert wider is not None
    assert fewer is not None
    assert 6.4 < wider < 30.0
    assert 20.0 < fewer < 50.0


def test_a_trial_to_come_takes_what_the_mean_one_did_whatever_its_epochs() -> None:
    gru = SecondLevelRecipe(model="gru", epochs=10)
    trees = SecondLevelRecipe(model="hist_gradient_boosting")
    records = [trial(0, gru, *[1.0] * 10), trial(1, trees, 50.0)]

    assert time_left_s(records, n_trials=4, n_concurrent=1) == pytest.approx(2 * (10.0 + 50.0) / 2)
