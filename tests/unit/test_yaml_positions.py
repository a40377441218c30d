"""YAML is read strictly, and every key and value knows where it stands."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ichtune.errors import ConfigError, StorageError, nearest
from ichtune.yaml_positions import MAX_BYTES, YamlDocument, dotted, read_yaml


def read(tmp_path: Path, text: str) -> YamlDocument:
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml(path)


def test_plain_values_mean_what_they_look_like(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 1e-4\nb: no\nc: [1, {d: 2019-01-01}]\ne: ~\nf: true\ng: '1'\n1: x\n")
    assert document.value == {
        "a": 1e-4,
        "b": "no",
        "c": [1, {"d": "2019-01-01"}],
        "e": None,
        "f": True,
        "g": "1",
        "1": "x",
    }


def test_places_are_counted_from_one(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 1\nb:\n  c: [7, {d: 8}]\n")
    path = tmp_path / "some.yaml"
    assert document.where("b", "c") == f"{path}:3:3"
    assert document.where_value("b", "c") == f"{path}:3:6"
    assert document.where("b", "c", 1, "d") == f"{path}:3:11"
    assert document.where_value("b", "c", 1, "d") == f"{path}:3:14"


def test_an_absent_key_stands_where_its_parent_does(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 1\nb:\n  c: 3\n")
    assert document.where("b", "nothing", 4) == f"{tmp_path / 'some.yaml'}:2:1"


def test_get_and_mapping(tmp_path: Path) -> None:
    document = read(tmp_path, "a: {b: [1, 2]}\nempty:\nlist: [1]\n")
    assert document.get("a", "b", 1) == 2
    assert document.get("a", "b", 2) is None
    assert document.get("a", "b", "x") is None
    assert document.mapping("empty") == {}
    with pytest.raises(ConfigError, match=r":3:7: list: must be a mapping of keys to values, got \[1\]"):
        document.mapping("list")


def test_an_unknown_key_names_its_place_and_the_nearest(tmp_path: Path) -> None:
    document = read(tmp_path, "search:\n  trils: 3\n")
    with pytest.raises(ConfigError) as caught:
        document.check_keys(("trials", "time"), "search")
    place = f"{tmp_path / 'some.yaml'}:2:3"
    assert str(caught.value) == f"{place}: unknown key 'trils' in search. {nearest('trils', ('trials', 'time'))}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r":3:1: duplicate key 'a', first on line 1"),
        ("a:\n  b: 2\n  b: 3\n", r":3:3: duplicate key 'b' in a, first on line 2"),
        ("a: !!python/object:os.system x\n", r":1:4: the tag .* is not allowed"),
        ("a: &x [1]\nb: *x\n", r":1:4: the anchor &x is not allowed"),
        ("a: *x\n", r":1:4: the alias \*x is not allowed"),
        ("a: [1\nb: 2", r":2:2: not YAML: .*expected ',' or '\]'"),
        ("a: 1\n---\nb: 1\n", r":2:1: a second document"),
        ("%YAML 1.1\n---\na: no\n", r"%YAML line is not allowed"),
        ("? [1, 2]\n: 3\n", r":1:3: a key must be a plain word"),
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("a: \x00", "not YAML"),
        ("[" * 5000 + "]" * 5000, r":1:31: nested more than 30 levels"),
        ("\n".join(" " * i + "a:" for i in range(40)), r":31:31: nested more than 30 levels"),
        ("a: " + "9" * 6000, r":1:4: a number that cannot be read"),
        ("a: " + "x" * MAX_BYTES, "larger than"),
    ],
)
def test_what_is_no_plain_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "some.yaml") in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="it is a folder"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 3\)"):
        read_yaml(tmp_path / "latin.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("a: 1")
    path.chmod(0)
    with pytest.raises(StorageError, match=r"cannot read .*secret\.yaml"):
        read_yaml(path)


def test_keys_are_written_as_a_person_would() -> None:
    assert dotted(("parameters", "windows", 1, 0, "low")) == "parameters.windows[1][0].low"


def test_what_was_taken_over_stands_where_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("z: 0\nlist:\n  - {a: 1}\n", encoding="utf-8")
    other = read_yaml(tmp_path / "other.yaml")
    mine = read(tmp_path, "b: 2\nlist: [{c: 3}]\n")
    grafts = {("list", 0): (other, ("list", 0)), ("list", 1): (mine, ("list", 0))}
    both = replace(mine, value={"b": 2, "list": [{"a": 1}, {"c": 3}]}, grafts=grafts)
    twice = replace(mine, value={"x": both.value}, grafts={("x",): (both, ())})

    assert both.where("list", 0, "a") == f"{tmp_path / 'other.yaml'}:3:6"
    assert both.where_value("list", 1, "c") == f"{tmp_path / 'some.yaml'}:2:12"
    assert both.where("b") == f"{tmp_path / 'some.yaml'}:1:1"
    assert both.where("list", 0, "nothing") == f"{tmp_path / 'other.yaml'}:3:5"
    assert twice.source("x", "list", 0, "a") == (other, ("list", 0, "a"))
    assert str(both.error("wrong", "list", 1, "c")) == f"{tmp_path / 'some.yaml'}:2:12: list[0].c: wrong"
    assert str(both.error("wrong", "list", 0, "a")) == (
        f"{tmp_path / 'other.yaml'}:3:9: list[0].a: wrong (included by {tmp_path / 'some.yaml'})"
    )
