"""Errors: exit codes and the help that a misspelt name gets."""

import pytest

from ichtune import errors
from ichtune.errors import IchtuneError, nearest


def test_every_error_is_one_family_with_an_exit_code_of_its_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, IchtuneError)]
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert codes == {
        "IchtuneError": 1,
        "ConfigError": 2,
        "DataError": 3,
        "ConflictError": 4,
        "StorageError": 5,
        "NothingUsableError": 7,
    }


@pytest.mark.parametrize(("name", "meant"), [("subdral", "subdural"), ("any_", "any")])
def test_nearest_names_what_was_meant_and_lists_all(name: str, meant: str) -> None:
    assert nearest(name, ["subdural", "any"]) == f"Did you mean {meant!r}? Known: any, subdural."


def test_nearest_does_not_guess_wildly() -> None:
    assert nearest("zzzz", ["adamw", "sgd"]) == "Known: adamw, sgd."


def test_nearest_takes_anything_for_a_name() -> None:
    assert nearest(3, [1, 2]) == "Known: 1, 2."  # type: ignore[arg-type, list-item]
