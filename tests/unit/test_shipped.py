"""Finding shipped YAML: by name, by path, in a checkout and in an installed wheel."""

from pathlib import Path

import pytest

from ichtune import shipped
from ichtune.errors import ConfigError
from ichtune.shipped import SHIPPED_KINDS, find_yaml, shipped_files, shipped_folder


@pytest.mark.parametrize("kind", SHIPPED_KINDS)
def test_every_kind_ships_something_and_each_is_found_by_name(kind: str) -> None:
    files = shipped_files(kind)
    assert files
    assert list(files) == sorted(files)
    for name, path in files.items():
        assert find_yaml(name, kind) == find_yaml(f"{name}.yaml", kind) == path


def test_a_file_on_disk_wins_over_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("windows.yaml").write_text("version: 1\n", encoding="utf-8")
    assert find_yaml("windows.yaml", "search_spaces") == Path("windows.yaml")
    assert find_yaml("windows", "search_spaces").parent == shipped_folder("search_spaces")


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'window.yaml': no such file, and no shipped search space.*'windows'"):
        find_yaml("window.yaml", "search_spaces")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a folder, not a file"):
        find_yaml(str(tmp_path), "ensembles")


def test_an_installed_package_carries_them_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "ichtune"
    (package / "_shipped" / "recipes").mkdir(parents=True)
    (package / "_shipped" / "recipes" / "one.yaml").write_text("version: 1\n", encoding="utf-8")
    monkeypatch.setattr(shipped, "__file__", str(package / "shipped.py"))
    assert list(shipped_files("recipes")) == ["one"]
    assert shipped_files("ensembles") == {}
