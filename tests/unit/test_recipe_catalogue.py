"""The catalogue of recipes: headers are read part by part, and every key is told from its declaration."""

from dataclasses import fields
from pathlib import Path

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.recipe_catalogue import (
    RecipeKey,
    ShippedRecipe,
    keys_markdown,
    markdown_table,
    neighbours_told,
    read_header,
    recipe_key_table,
    recipe_rows,
    recipes_markdown,
    schedule_told,
    sees_told,
    shipped_recipes,
)
from ichtune.second_level_recipe import SecondLevelRecipe, second_level_keys
from ichtune.shipped import shipped_files

HEADER = """\
# Purpose:   One thing at 0.5 px. Another.
# Command:   ichtune train --recipe mine
# Published: a network,
#            in two lines: yes.
# Figures:   validation loss .06.
# Result:    not measured yet.
version: 1
# Left out:  no header
"""
PARTS = {
    "Purpose": "One thing at 0.5 px. Another.",
    "Command": "ichtune train --recipe mine",
    "Published": "a network, in two lines: yes.",
    "Figures": "validation loss .06.",
    "Result": "not measured yet.",
}


def header_of(folder: Path, text: str) -> dict[str, str]:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return read_header(path)


def keys(**names: tuple[str, ...]) -> dict[str, RecipeKey]:
    return {key.name: key for key in recipe_key_table(names) if key.level == 1}


def test_a_header_is_read_up_to_the_first_line_that_is_none(tmp_path: Path) -> None:
    assert header_of(tmp_path, HEADER) == PARTS


def test_what_is_left_out_has_its_place(tmp_path: Path) -> None:
    text = HEADER.replace("# Figures:", "# Left out:  the rest.\n# Figures:")
    assert list(header_of(tmp_path, text)) == ["Purpose", "Command", "Published", "Left out", "Figures", "Result"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# Figures:   validation loss .06.\n", "", r"in this order, got Purpose, Command, Published, Result"),
        ("# Figures:", "# Figure: ", r"mine\.yaml: header line '# Figure:"),
        ("# Result:", "# Figures:", r"header line '# Figures:    not measured yet\.' must begin one of"),
        ("# Purpose:", "# Result: ", r"in this order, got Result, Command"),
        ("#            in", "# in", r"header line '# in two lines: yes\.' must begin one of # Purpose:"),
    ],
)
def test_a_header_with_a_mistake_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = HEADER.replace("# Result:    not measured yet.\n", "") if new.startswith("# Result") else HEADER
    with pytest.raises(ConfigError, match=message):
        header_of(tmp_path, text.replace(old, new))


def test_the_purpose_is_told_in_its_first_sentence() -> None:
    assert ShippedRecipe("mine", Recipe(), PARTS).purpose == "One thing at 0.5 px"


def test_every_shipped_file_is_in_the_catalogue_by_its_number() -> None:
    names = [shipped.name for shipped in shipped_recipes()]
    assert sorted(names) == list(shipped_files("recipes"))
    assert names.index("exp_90") < names.index("exp_300") < names.index("top9_resnet34_multi_target")
    assert names.index("top9_resnet34_multi_target") < names.index("top11_seresnext50_512")


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (Recipe(), "none"),
        (Recipe(neighbours=1), "±1 stack"),
        (Recipe(neighbours=2, neighbour_side="below"), "-2 stack"),
        (Recipe(neighbours=1, neighbour_stride=2, neighbour_side="above"), "+1 by 2 stack"),
        (Recipe(neighbours=3, neighbour_use="mean", neighbour_targets=0.1), "±3 mean, targets 0.1"),
    ],
)
def test_neighbours_are_told(recipe: Recipe, told: str) -> None:
    assert neighbours_told(recipe) == told


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (
            Recipe(optimizer="ranger", lr=1e-4, epochs=9, frozen_epochs=4, frozen_lr=1e-2, anneal_start=0.6),
            "ranger, 4 frozen at 0.01, then flat_cosine (anneal_start 0.6) at 0.0001, 5 epochs of batches of 64",
        ),
        (
            Recipe(lr_schedule="constant", lr=0.5, batch_size=3),
            "adamw, constant at 0.5, 4 epochs of batches of 3",
        ),
        (
            Recipe(lr_schedule="cosine_restarts", cycles=2, cycle_decay=0.7),
            "adamw, cosine_restarts (cycles 2, cycle_decay 0.7) at 0.001, 4 epochs of batches of 64",
        ),
    ],
)
def test_a_schedule_is_told(recipe: Recipe, told: str) -> None:
    assert schedule_told(recipe) == told


def test_what_a_recipe_starts_from_is_told_by_its_name() -> None:
    first = ShippedRecipe("first", Recipe(epochs=3), PARTS)
    then = ShippedRecipe("then", Recipe(warm_start=first.recipe.recipe_id, pseudo_labels="else"), PARTS)
    pretrained = ShippedRecipe("last", Recipe(pretrained=True), PARTS)
    rows = recipe_rows((first, then, pretrained))
    assert [row["start"] for row in rows] == ["random", "from first, pseudo-labels of else", "pretrained"]


def test_every_key_is_told_from_its_declaration() -> None:
    table = keys()
    assert list(table) == [spec.name for spec in fields(Recipe)]
    assert all(key.meaning and key.default and key.allowed for key in table.values())


@pytest.mark.parametrize(
    ("name", "default", "allowed"),
    [
        ("dropout", "0", "0 to 0.95"),
        ("image_px", "224", "16 to 2048, whole"),
        ("epochs", "4", "at least 1, whole"),
        ("seed", "7", "0 to 2147483647, whole"),
        ("beta1", "none", "0 to 0.9999, or none"),
        ("compile", "false", "true, false"),
        ("any_rule", "own", "`own`, `max`, `noisy_or`"),
        ("loss_weights", "[2, 1, 1, 1, 1, 1]", "six numbers of at least 0"),
        ("warm_start", "empty", "a name"),
        ("loss", "bce", "`bce`, `focal`"),
    ],
)
def test_a_default_and_what_a_key_may_be_are_told(name: str, default: str, allowed: str) -> None:
    key = keys(loss=("bce", "focal"))[name]
    assert (key.default, key.allowed) == (default, allowed)


def test_windows_are_told_by_their_sets() -> None:
    windows = keys()["windows"]
    assert windows.default == "brain_subdural_bone"
    assert "`brain_stroke_bone`" in windows.allowed


def test_a_table_is_escaped() -> None:
    assert markdown_table(("a", "b"), [("x|y", 1)]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


def test_the_pages_have_a_row_for_each() -> None:
    shipped = (ShippedRecipe("mine", Recipe(), PARTS), ShippedRecipe("yours", Recipe(lr=0.1), PARTS))
    assert recipes_markdown(shipped).splitlines()[-2:] == [
        "| `mine` | resnet18 | 224 | brain_subdural_bone | none | random | adamw, flat_cosine (anneal_start 0.7) at "
        "0.001, 4 epochs of batches of 64 | validation loss .06. |",
        "| `yours` | resnet18 | 224 | brain_subdural_bone | none | random | adamw, flat_cosine (anneal_start 0.7) at "
        "0.1, 4 epochs of batches of 64 | validation loss .06. |",
    ]
    key = RecipeKey(1, "lr", "1", "0 to 2", "speed")
    assert keys_markdown((key,)).endswith("\n| `lr` | 1 | 0 to 2 | speed |\n")


def test_the_second_level_has_tables_of_its_own() -> None:
    shipped = (ShippedRecipe("second", SecondLevelRecipe(), PARTS), ShippedRecipe("mine", Recipe(), PARTS))
    page = recipes_markdown(shipped)
    assert page.index("| `mine` |") < page.index("## The second level") < page.index("| `second` | gru |")
    assert [row["level"] for row in recipe_rows(shipped)] == [1, 2]
    keys = (RecipeKey(2, "hidden", "64", "4 to 8", "width"), RecipeKey(1, "lr", "1", "0 to 2", "speed"))
    page = keys_markdown(keys)
    assert page.index("| `lr` |") < page.index("## Keys of the second level") < page.index("| `hidden` |")
    told = [key.name for key in recipe_key_table() if key.level == 2]
    assert told == list(second_level_keys())


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (SecondLevelRecipe(), "neighbours' differences, spacing"),
        (SecondLevelRecipe(embeddings=8, deltas=False), "8 components of embeddings, spacing"),
        (SecondLevelRecipe(model="lightgbm", metadata=True), "±5 slices, aggregates of the series, spacing, metadata"),
        (SecondLevelRecipe(model="hist_gradient_boosting", metadata_only=True), "metadata only"),
        (SecondLevelRecipe(model="kernel"), "nothing"),
    ],
)
def test_what_a_second_level_sees_is_told(recipe: SecondLevelRecipe, told: str) -> None:
    assert sees_told(recipe) == told
