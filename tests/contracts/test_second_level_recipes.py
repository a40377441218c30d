"""Every shipped recipe of the second level: read, told, and trained for an epoch on a few generated series."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.errors import ConfigError
from ichtune.recipe_catalogue import read_header
from ichtune.recipe_file import read_any_recipe, read_second_level_recipe
from ichtune.second_level.models import SECOND_LEVEL_MODELS, create_series_model
from ichtune.second_level.views import METADATA_COLUMNS, SeriesView
from ichtune.second_level_recipe import ALL, SMOOTHERS, SecondLevelRecipe, _without_effect, recipe_from_dict
from ichtune.shipped import shipped_files

FILES: dict[str, Path] = {
    name: path
    for name, path in shipped_files("recipes").items()
    if isinstance(read_any_recipe(name), SecondLevelRecipe)
}
NAMES = list(FILES)
#: What tells on which scale a published figure is.
SCALES = ("validation loss", "leaderboard", "out-of-fold", "not printed")


def a_few_series(n_components: int) -> tuple[SeriesView, np.ndarray]:
    """Return twelve series of nine slices, a bleed in the middle of every second one, as two members see them."""
    rng = np.random.default_rng(0)
    series_R, place_R = np.repeat(np.arange(12), 9), np.tile(np.arange(9), 12)
    is_on_R = (series_R % 2 == 0) & (place_R > 2) & (place_R < 6)
    y_RL = np.repeat(is_on_R[:, None], 6, axis=1).astype(float)
    z_MRL = 4.0 * y_RL - 2.0 + rng.standard_normal((2, *y_RL.shape))
    n_rows = len(series_R)
    view = SeriesView(
        image_ids=np.arange(n_rows).astype(str).astype(object),
        patient_R=series_R.astype(str).astype(object),
        series_R=series_R,
        z_mm_R=5.0 * place_R,
        p_MRL=from_logits(z_MRL),
        metadata_RC=np.zeros((n_rows, len(METADATA_COLUMNS))),
        e_RD=rng.standard_normal((n_rows, n_components)).astype(np.float32) if n_components else None,
    )
    return view, y_RL


def test_every_model_has_a_recipe() -> None:
    assert {read_second_level_recipe(name).model for name in NAMES} == set(SECOND_LEVEL_MODELS)


def test_the_defaults_of_trees_are_those_that_do_on_few_patients() -> None:
    assert read_second_level_recipe("level2_trees") == SecondLevelRecipe(model="hist_gradient_boosting")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_and_goes_through_plain_values(name: str) -> None:
    recipe = read_second_level_recipe(name)
    assert recipe_from_dict(recipe.to_dict()) == recipe
    assert recipe.members == ALL


@pytest.mark.parametrize("name", NAMES)
def test_every_key_that_it_names_is_read_by_its_model(name: str) -> None:
    lines = FILES[name].read_text(encoding="utf-8").splitlines()
    named = [line.split(":")[0] for line in lines if line and not line.startswith("#")]
    assert named[:2] == ["version", "level"]
    assert not set(named) & set(_without_effect(read_second_level_recipe(name)))


@pytest.mark.parametrize("name", NAMES)
def test_its_header_says_what_it_is(name: str) -> None:
    header = read_header(FILES[name])
    assert header["Command"] == f"ichtune stack --recipe {name}"
    assert header["Purpose"].startswith("Second level: ")
    assert any(scale in header["Figures"] for scale in SCALES)
    assert all(len(line) <= 120 for line in FILES[name].read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_it_learns(name: str) -> None:
    recipe = read_second_level_recipe(name)
    small = {"hidden": 8, "epochs": 1, "rounds": 3, "min_slices": 5}
    recipe = replace(recipe, **{key: value for key, value in small.items() if getattr(recipe, key) >= value})
    view, y_RL = a_few_series(recipe.embeddings)
    try:
        model = create_series_model(recipe).begin(view, y_RL)
        model.run_epoch()
    except ConfigError as error:
        pytest.skip(str(error))  # an extra that is not installed
    p_RL = model.predict(view)
    assert p_RL.shape == y_RL.shape
    assert ((p_RL > 0) & (p_RL < 1)).all()
    if recipe.model not in SMOOTHERS:
        assert (p_RL != view.p_MRL.mean(axis=0)).any()


def test_no_two_are_the_same_run() -> None:
    ids = {name: read_second_level_recipe(name).recipe_id for name in NAMES}
    assert len(set(ids.values())) == len(ids)
