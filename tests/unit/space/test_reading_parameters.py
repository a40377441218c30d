"""One entry under parameters: every form, every spelling, every mistake at its place."""

from pathlib import Path

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.space.domains import Choice, Domain, Integer, Real
from ichtune.space.reading_parameters import Places, read_domain
from ichtune.yaml_positions import read_yaml


def domain(tmp_path: Path, key: str, written: str, places: Places | None = None) -> Domain:
    path = tmp_path / "space.yaml"
    path.write_text(f"parameters:\n  {key}: {written}\n")
    return read_domain(read_yaml(path), key, {} if places is None else places)


@pytest.mark.parametrize(
    ("key", "written", "expected"),
    [
        ("image_px", "{low: 256, high: 512, step: 64}", Integer(256, 512, step=64)),
        ("image_px", "{min: 256, max: 512, q: 64}", Integer(256, 512, step=64)),
        ("image_px", "{lower: 256, upper: 512, type: int}", Integer(256, 512)),
        ("batch_size", "{distribution: lograndint, min: 8, max: 64}", Integer(8, 64, log=True)),
        ("lr", "{low: 1e-5, high: 3e-3, log: true}", Real(1e-5, 3e-3, log=True)),
        ("lr", "{distribution: log_uniform_values, min: 1e-5, max: 3e-3}", Real(1e-5, 3e-3, log=True)),
        ("lr", "{space: loguniform, lower: 1e-5, upper: 3e-3}", Real(1e-5, 3e-3, log=True)),
        ("dropout", "{distribution: uniform, low: 0.0, high: 0.5}", Real(0.0, 0.5)),
        ("dropout", "{type: quniform, low: 0.0, high: 0.5, q: 0.1}", Real(0.0, 0.5, step=0.1)),
        ("dropout", "{distribution: q_uniform, min: 0, max: 0.5, q: 0.1}", Real(0.0, 0.5, step=0.1)),
        ("image_px", "{space: qrandint, lower: 128, upper: 512, q: 128}", Integer(128, 512, step=128)),
        ("batch_size", "{distribution: int_uniform, min: 8, max: 64}", Integer(8, 64)),
        ("epochs", "{type: randint, low: 2, high: 9}", Integer(2, 9)),
        ("weight_decay", "{type: float, low: 1, high: 2, step: 0.5}", Real(1.0, 2.0, step=0.5)),
    ],
)
def test_ranges_in_every_spelling(tmp_path: Path, key: str, written: str, expected: Domain) -> None:
    assert domain(tmp_path, key, written) == expected


def test_a_real_of_the_recipe_stays_real_between_whole_bounds(tmp_path: Path) -> None:
    assert domain(tmp_path, "weight_decay", "{low: 0, high: 1}") == Real(0.0, 1.0)
    assert domain(tmp_path, "weight_decay", "{low: 0, high: 1, type: int}") == Integer(0, 1)


@pytest.mark.parametrize(
    ("key", "written", "labels"),
    [
        ("optimizer", "[radam, sgd]", ("radam", "sgd")),
        ("optimizer", "{choices: [radam, sgd]}", ("radam", "sgd")),
        ("optimizer", "{values: [radam, sgd]}", ("radam", "sgd")),
        ("optimizer", "{space: choice, categories: [radam, sgd]}", ("radam", "sgd")),
        ("optimizer", "{space: grid_search, values: [radam, sgd]}", ("radam", "sgd")),
        ("optimizer", "{grid_search: [radam, sgd]}", ("radam", "sgd")),
        ("optimizer", "{type: categorical, options: [radam, sgd]}", ("radam", "sgd")),
        ("epochs", "{constant: 4}", ("4",)),
        ("epochs", "{distribution: constant, value: 4}", ("4",)),
        ("optimizer", "sgd", ("sgd",)),
        ("optimizer", "{value: sgd}", ("sgd",)),
        ("pretrained", "[false, true]", ("false", "true")),
        ("loss_weights", "[2, 1, 1, 1, 1, 1]", ("2,1,1,1,1,1",)),
        (
            "loss_weights",
            "{choices: [[2, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]}",
            ("2,1,1,1,1,1", "1,1,1,1,1,1"),
        ),
        ("windows", "brain", ("brain",)),
        ("windows", "dicom", ("dicom",)),
        ("windows", "[dicom, brain]", ("dicom", "brain")),
        ("windows", "[dicom, [80, 200]]", ("dicom+80/200",)),
        ("windows", "[[dicom, [80, 200]], [dicom], brain]", ("dicom+80/200", "dicom", "brain")),
        ("windows", "[[[{low: 30, high: 60}, 80], dicom]]", ("30..60/80+dicom",)),
        ("positive_weights", "[2, 1, 1, 1, 1, 1]", ("2,1,1,1,1,1",)),
        ("augmentation", "[none, affine]", ("none", "affine")),
        ("augmentation", "[{Affine: {p: 0.5}}]", ('[{"Affine":{"p":0.5}}]',)),
        ("augmentation", "[none, [{Affine: {p: 0.5}}]]", ("none", '[{"Affine":{"p":0.5}}]')),
        ("learnable_windows", "[false, true]", ("false", "true")),
        ("beta1", "[null, 0.95]", ("none", "0.95")),
        ("beta2", "{choices: [0.99, null]}", ("0.99", "none")),
        ("eps", "{value: null}", ("none",)),
        ("eps", "null", ("none",)),
        ("eps", "[none, 1e-6]", ("none", "1e-06")),
        ("warm_start", "0123456789ab", ("0123456789ab",)),
        ("windows", "[brain, bone]", ("brain", "bone")),
        ("windows", "[[40, 80], [81, 200]]", ("40/80+81/200",)),
        ("windows", "[brain, [[41, 80], [80, 200]]]", ("brain", "41/80+80/200")),
        ("windows", "{value: [[41, 80]]}", ("41/80",)),
        ("windows", "[bone, [[{low: 30, high: 60}, 80]]]", ("bone", "30..60/80")),
    ],
)
def test_choices_and_fixed_values(tmp_path: Path, key: str, written: str, labels: tuple[str, ...]) -> None:
    read = domain(tmp_path, key, written)
    assert isinstance(read, Choice)
    assert read.labels == labels


def test_numbers_of_a_window_are_whole_between_whole_bounds(tmp_path: Path) -> None:
    read = domain(tmp_path, "windows", "[brain, [[{low: 30, high: 60}, {low: 60.0, high: 120, log: true}]]]")
    assert isinstance(read, Choice)
    assert read.options[1].value == ((Integer(30, 60), Real(60.0, 120.0, log=True)),)


def test_places_of_options_and_bounds(tmp_path: Path) -> None:
    places: Places = {}
    domain(tmp_path, "windows", "[brain, [[{min: 30, high: 60}, 80]]]", places)
    assert places["windows", "brain"] == ("parameters", "windows", 0)
    assert places["windows[1][0].center", "low"] == ("parameters", "windows", 1, 0, 0, "min")


@pytest.mark.parametrize(
    ("key", "written", "message"),
    [
        ("lr", "{low: 1, high: 0.1}", r":2:13: parameters\.lr\.low: low must be less than high"),
        ("lr", "{low: 0, high: 1, log: true}", r"parameters\.lr\.log: log: true needs low above 0"),
        (
            "lr",
            "{low: 1, high: 2, log: yes}",
            r":2:30: parameters\.lr\.log: must be true or false, got 'yes'",
        ),
        ("lr", "{low: .nan, high: 1}", r":2:13: parameters\.lr\.low: must be a number, got nan"),
        ("lr", "{lo: 1, high: 2}", r":2:8: unknown key 'lo' in parameters\.lr\. Did you mean 'low'\?"),
        ("lr", "{low: 1, min: 1, high: 2}", r":2:21: parameters\.lr\.min: says the same as 'low'"),
        ("lr", "{low: 1}", "a range needs both low and high"),
        ("lr", "{log: true}", "expected one of value, choices, or low and high; got neither"),
        ("lr", "{choices: [1, 2], low: 1}", "got choices and range"),
        ("lr", "{choices: [1, 2], step: 1}", r"parameters\.lr\.step: belongs to a range, not to choices"),
        (
            "lr",
            "{type: unifrm, low: 1, high: 2}",
            "unknown kind of parameter 'unifrm'. Did you mean 'uniform'",
        ),
        ("lr", "{type: choice, low: 1, high: 2}", r"parameters\.lr\.type: does not go with range"),
        ("lr", "{type: loguniform, low: 1, high: 2, log: false}", "contradicts 'loguniform'"),
        ("lr", "[]", "must be a list of at least one choice"),
        ("lr", "{type: qloguniform, low: 1, high: 2, q: 0.5}", "step and log: true exclude each other"),
        ("image_px", "{type: qlograndint, low: 64, high: 512, q: 64}", "step and log: true exclude each other"),
        ("lr", "[1, 1.0]", r":2:11: parameters\.lr\[1\]: stands among the choices twice \(1\)"),
        ("lr", "[[1]]", r"parameters\.lr\[0\]: must be one plain value"),
        ("lr", "", r"parameters\.lr: has no value"),
        ("lr", "[null, 1e-3]", r":2:8: parameters\.lr\[0\]: has no value"),
        ("beta1", "[null, none]", r"parameters\.beta1\[1\]: stands among the choices twice \(none\)"),
        ("positive_weights", "[a, b]", r"parameters\.positive_weights\[0\]: must be a list of 6 numbers"),
        ("architecture", "{low: 1, high: 2}", "architecture has no range"),
        (
            "windows",
            "brainn",
            r":2:12: parameters\.windows: unknown window set 'brainn'\. Did you mean 'brain'",
        ),
        (
            "windows",
            "[brain, [[40, 80]]]",
            r"parameters\.windows\[1\]: stands among the choices twice \(brain\)",
        ),
        ("windows", "[[40, 80], brain]", r"parameters\.windows\[0\]: a window must be"),
        ("windows", "[[[{low: 3, high: 5, when: {}}, 80]]]", "unknown key 'when'"),
        (
            "loss_weights",
            "{choices: [3]}",
            r"parameters\.loss_weights\.choices\[0\]: must be a list of 6 numbers",
        ),
        ("image_px", "{low: 256, high: 512.5}", r"high must be a whole number here, got 512\.5"),
    ],
)
def test_mistakes_are_reported_where_they_stand(tmp_path: Path, key: str, written: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        domain(tmp_path, key, written)
    assert str(caught.value).startswith(f"{tmp_path / 'space.yaml'}:2:")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("pretrained", "weights.safetensors"),
        ("warm_start", "weights.safetensors"),
        ("pseudo_labels", "predictions.parquet"),
    ],
)
def test_a_file_is_looked_for_beside_the_space_and_then_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, name: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    assert values_of(domain(tmp_path, key, name)) == [str(here / name)]
    (tmp_path / name).touch()
    assert values_of(domain(tmp_path, key, name)) == [str(tmp_path / name)]
    assert values_of(domain(tmp_path, key, str(here / name))) == [str(here / name)]
    (found,) = values_of(domain(Path(".."), key, name))
    assert Path(str(found)).is_absolute()
    assert Path(str(found)).samefile(tmp_path / name)


def test_a_recipe_is_looked_for_beside_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "first.yaml").write_text("epochs: 9\n")

    assert values_of(domain(tmp_path, "warm_start", "first.yaml")) == [Recipe(epochs=9).recipe_id]
    with pytest.raises(ConfigError, match=r"space\.yaml:2:15: parameters\.warm_start: cannot read 'second.yaml'"):
        domain(tmp_path, "warm_start", "second.yaml")


def values_of(read: Domain) -> list[object]:
    assert isinstance(read, Choice)
    return [option.value for option in read.options]
