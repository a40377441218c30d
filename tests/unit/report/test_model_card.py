from dataclasses import replace

import pytest

from ichtune.report.blend_account import AppliedStep, BlendAccount, Compared, Suspected
from ichtune.report.fold_ensemble import ensemble_of
from ichtune.report.model_card import NO_LICENCE, model_card


@pytest.fixture
def ensemble(blended_networks):
    return ensemble_of(blended_networks())


def test_it_says_what_it_is_what_it_learnt_from_and_what_it_is_not(ensemble):
    card = model_card(ensemble, "CC BY 4.0, for research")
    told = ensemble.trained_on
    assert "not a medical device" in card
    assert "6 models of 2 recipes, blended by `equal_mean_logit`" in card
    assert f"{told.n_slices} labelled slices of 9 patients: generated data (phantom)" in card
    assert f"log loss {told.crossfit_loss:.5f}, 95% interval {told.crossfit_low:.5f} to" in card
    assert "cross-fitted on the slices named above, which are generated data (phantom)." in card
    assert card.endswith("## Licence\n\nCC BY 4.0, for research\n")


def test_it_says_how_many_recipes_were_left_out(ensemble):
    assert "left out" not in model_card(ensemble, "")
    card = " ".join(model_card(replace(ensemble, n_left_out=3), "").split())
    assert "Recipes of the blend left out, since their weight is zero: 3. No prediction depends on them. ##" in card


def test_only_generated_data_is_called_generated(ensemble):
    real = replace(ensemble, trained_on=replace(ensemble.trained_on, generated=False))
    assert "generated" not in model_card(real, "")
    assert "what these models say of real scans means nothing" in model_card(ensemble, "")


def test_a_missing_licence_is_no_permission(ensemble):
    assert NO_LICENCE in model_card(ensemble, " ")


def test_it_says_what_each_step_gained_and_what_is_doubtful(ensemble):
    first = ensemble.members[0]
    account = BlendAccount(
        losses={first.recipe_id: 0.25},
        compared=(Compared("best_single", -0.002, -0.003, -0.001),),
        steps=(AppliedStep("platt", "any", 0.01),),
        suspected=(Suspected(first.recipe_id, "rows", 4, None), Suspected("gone", "fold", 9, 2)),
        optimism=0.0004,
        n_candidates=7,
    )
    card = model_card(replace(ensemble, account=account), "")
    assert f"- `{first.name}`, 3 fold models, out-of-fold loss 0.25000\n" in card
    assert "- against the best single run: -0.00200, -0.00300 to -0.00100\n" in card
    assert "- platt, `any`: -0.01000\n" in card
    assert "chosen by loss among 7: 0.00040 of its lead is expected to be luck" in card
    assert f"- `{first.name}` is sure and right about slices of 4 patients more often" in card
    assert "- `gone` predicts fold 2 better than an honest model would" in card
    for heading in ("What each step gained", "Doubts"):
        assert heading in card
        assert heading not in model_card(replace(ensemble, account=BlendAccount()), "")


def test_it_names_the_second_level_and_the_networks_that_run_for_it(stacked_networks):
    workspace, _ = stacked_networks(alone=True)
    card = model_card(ensemble_of(workspace), "")
    assert "12 models of 4 recipes" in card
    assert card.count("second level on 2 of these, 3 fold models") == 2
    assert card.count("for the second level alone\n") == 2
    assert "A second level learns from what networks say of a whole series" in card
