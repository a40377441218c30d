"""Sections of settings: every spelling of every key is read, and is known to whoever lists them."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.space.domains import Integer
from ichtune.space.model import Parameter
from ichtune.space.reading_settings import (
    SYNONYMS,
    UNWRITTEN,
    read_early_stop,
    read_resources,
    read_section,
    written_keys,
)
from ichtune.space.settings import EarlyStop, FoldSettings, MetricSettings, Resources, SearchSettings, TrainSettings
from ichtune.yaml_positions import YamlDocument, read_yaml

SECTIONS: dict[str, Any] = {
    "metric": MetricSettings,
    "search": SearchSettings,
    "early_stop": EarlyStop,
    "folds": FoldSettings,
    "resources": Resources,
    "train": TrainSettings,
}


def document(tmp_path: Path, text: str) -> YamlDocument:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return read_yaml(path)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_attribute_can_be_written(section: str) -> None:
    attributes = {field.name for field in fields(SECTIONS[section])}
    synonyms = SYNONYMS.get(section, {})
    written = written_keys(SECTIONS[section], section)

    assert set(synonyms.values()) <= attributes
    assert not UNWRITTEN & set(written)
    assert {synonyms.get(key, key) for key in written} >= attributes - {"auto"}


def test_a_section_is_read_with_what_was_ready(tmp_path: Path) -> None:
    stop = EarlyStop("asha", max=3)
    read = read_section(document(tmp_path, "search: {time: 1m}\n"), SearchSettings, "search", early_stop=stop)

    assert read == SearchSettings(time_s=60.0, early_stop=stop)
    assert read_section(document(tmp_path, "a: 1\n"), TrainSettings, "train") == TrainSettings()


def test_an_error_names_the_key_as_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"space\.yaml:1:26: resources\.gpu_memory: must be an amount of memory"):
        read_resources(document(tmp_path, "resources: {gpu_memory:  12}\n".replace("12", "much")))


def test_the_longest_trial_is_the_base_s_where_no_parameter_says(tmp_path: Path) -> None:
    plain = document(tmp_path, "search: {early_stop: asha}\n")
    epochs = Parameter("epochs", Integer(2, 5))

    assert read_early_stop(plain, (), Recipe(epochs=9)).max == 9
    assert read_early_stop(plain, (epochs,), Recipe(epochs=9)).max == 5
    with pytest.raises(ConfigError, match=r":1:42: search\.early_stop\.grace: must not exceed the 5 epochs"):
        read_early_stop(
            document(tmp_path, "search: {early_stop: {type: asha, grace: 6}}\n"), (epochs,), Recipe(epochs=9)
        )
