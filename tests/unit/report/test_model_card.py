from dataclasses import replace

import pytest

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
