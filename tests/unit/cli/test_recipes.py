"""`ichtune recipes`: a table for people, markdown for the documents, JSON for scripts."""

import json

import pytest

from ichtune.cli.main import main
from ichtune.cli.recipes import known_names
from ichtune.recipe import recipe_keys
from ichtune.second_level_recipe import second_level_keys
from ichtune.shipped import shipped_files
from ichtune.training.optimizers import OPTIMIZERS

Captured = pytest.CaptureFixture[str]


def test_it_lists_every_shipped_recipe(capsys: Captured) -> None:
    assert main(["recipes"]) == 0
    shown = capsys.readouterr()
    named = [
        line.split()[0]
        for line in shown.out.splitlines()
        if line[:1].strip() and not line.startswith(("name ", "The "))
    ]
    assert sorted(named) == list(shipped_files("recipes"))
    assert shown.err.splitlines()[-1].startswith("next: ichtune train --recipe ")


def test_it_lists_every_key_with_its_default(capsys: Captured) -> None:
    assert main(["recipes", "--keys"]) == 0
    shown = capsys.readouterr().out
    named = [
        line.split()[0] for line in shown.splitlines() if line[:1].strip() and not line.startswith(("name ", "The "))
    ]
    assert named == [*recipe_keys(), *second_level_keys()]
    assert "[2, 1, 1, 1, 1, 1]" in shown


def test_scripts_get_json(capsys: Captured) -> None:
    assert main(["recipes", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["exp_00"]["architecture"] == "efficientnet_b0"
    assert (rows["level2_gru"]["level"], rows["level2_gru"]["model"]) == (2, "gru")
    assert main(["recipes", "--keys", "--json"]) == 0
    told = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert all(f"`{name}`" in told["optimizer"]["allowed"] for name in OPTIMIZERS)


def test_documents_get_markdown(capsys: Captured) -> None:
    assert main(["recipes", "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("# Shipped recipes\n")
    assert main(["recipes", "--keys", "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("# Keys of a recipe\n")


@pytest.mark.parametrize("option", ["--quiet", "-q"])
@pytest.mark.parametrize("asked", [[], ["--keys"]])
def test_quiet_gives_the_table_without_a_note(option: str, asked: list[str], capsys: Captured) -> None:
    assert main(["recipes", *asked]) == 0
    told = capsys.readouterr()
    assert main(["recipes", *asked, option]) == 0
    assert capsys.readouterr() == (told.out, "")
    assert told.err


def test_two_forms_at_once_are_refused(capsys: Captured) -> None:
    assert main(["recipes", "--markdown", "--json"]) == 2
    assert "two forms of one result" in capsys.readouterr().err


def test_every_key_whose_names_are_told_is_one_of_a_recipe() -> None:
    assert set(known_names()) <= set(recipe_keys())
    assert all(known_names().values())
