"""``when`` in every form, and its mistakes at their place."""

from pathlib import Path

import pytest

from ichtune.errors import ConfigError
from ichtune.space.conditions import Condition, Reference, Test
from ichtune.space.constraints import Constraint
from ichtune.space.reading_conditions import read_condition, read_constraints
from ichtune.space.reading_parameters import read_domain
from ichtune.yaml_positions import read_yaml

PARENTS = """\
parameters:
  optimizer: [sgd, adamw, radam]
  lr: {low: 1e-4, high: 1e-2, log: true}
  neighbours: [0, 1, 2]
  windows: [brain, bone, [[41, 80]], dicom, [dicom, [40, 80]]]
  loss_weights: {choices: [[2, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]}
  loss: bce
  positive_weights: {choices: [[1, 1, 1, 1, 1, 1], [2, 1, 1, 1, 1, 1]]}
  calibration: prior_shift
  augmentation: [none, [{Affine: {p: 0.5}}]]
  beta1: [null, 0.95]
"""


def condition(tmp_path: Path, when: str) -> Condition:
    path = tmp_path / "space.yaml"
    path.write_text(f"{PARENTS}  momentum: {{low: 0.8, high: 0.9, when: {when}}}\n")
    document = read_yaml(path)
    domains = {key: read_domain(document, key, {}) for key in document.mapping("parameters")}
    return read_condition(document, "momentum", domains)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("{optimizer: sgd}", ((Test("optimizer", "eq", "sgd"),),)),
        ("{optimizer: [sgd, radam]}", ((Test("optimizer", "in", ("sgd", "radam")),),)),
        ("{optimizer: {not_in: [sgd]}}", ((Test("optimizer", "not_in", ("sgd",)),),)),
        ("{lr: {ge: 1e-3, lt: 1e-2}}", ((Test("lr", "ge", 1e-3), Test("lr", "lt", 1e-2)),)),
        (
            "{optimizer: sgd, neighbours: {gt: 0}}",
            ((Test("optimizer", "eq", "sgd"), Test("neighbours", "gt", 0)),),
        ),
        (
            "[{optimizer: sgd}, {neighbours: {ne: 1}}]",
            ((Test("optimizer", "eq", "sgd"),), (Test("neighbours", "ne", 1),)),
        ),
        ("{windows: [[41, 80]]}", ((Test("windows", "eq", "41/80"),),)),
        ("{windows: [brain, [[41, 80]]]}", ((Test("windows", "in", ("brain", "41/80")),),)),
        ("{windows: 41/80}", ((Test("windows", "eq", "41/80"),),)),
        ("{loss_weights: [1, 1, 1, 1, 1, 1]}", ((Test("loss_weights", "eq", "1,1,1,1,1,1"),),)),
        ("{loss: focal}", ((Test("loss", "eq", "focal"),),)),
        ("{windows: dicom}", ((Test("windows", "eq", "dicom"),),)),
        ("{windows: [dicom, [40, 80]]}", ((Test("windows", "eq", "dicom+40/80"),),)),
        ("{windows: [dicom, brain]}", ((Test("windows", "in", ("dicom", "brain")),),)),
        ("{windows: [[dicom, [40, 80]], brain]}", ((Test("windows", "in", ("dicom+40/80", "brain")),),)),
        ("{positive_weights: [2, 1, 1, 1, 1, 1]}", ((Test("positive_weights", "eq", "2,1,1,1,1,1"),),)),
        ("{positive_weights: {ne: [2, 1, 1, 1, 1, 1]}}", ((Test("positive_weights", "ne", "2,1,1,1,1,1"),),)),
        ('{loss_weights: ["2,1,1,1,1,1"]}', ((Test("loss_weights", "in", ("2,1,1,1,1,1",)),),)),
        ("{augmentation: [{Affine: {p: 0.5}}]}", ((Test("augmentation", "eq", '[{"Affine":{"p":0.5}}]'),),)),
        (
            "{augmentation: [none, [{Affine: {p: 0.5}}]]}",
            ((Test("augmentation", "in", ("none", '[{"Affine":{"p":0.5}}]')),),),
        ),
        ("{beta1: null}", ((Test("beta1", "eq", "none"),),)),
        ("{beta1: none}", ((Test("beta1", "eq", "none"),),)),
        ("{beta1: {not_in: [null]}}", ((Test("beta1", "not_in", ("none",)),),)),
        ("{beta1: 0.95}", ((Test("beta1", "eq", 0.95),),)),
        ("{lr: {lt: {parameter: neighbours}}}", ((Test("lr", "lt", Reference("neighbours")),),)),
    ],
)
def test_every_form(tmp_path: Path, when: str, expected: Condition) -> None:
    assert condition(tmp_path, when) == expected


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("{optimizr: sgd}", r"when\.optimizr: unknown parent 'optimizr'\. Did you mean 'optimizer'"),
        ("{optimizer: sdg}", r"when\.optimizer: optimizer is never 'sdg'\. Did you mean 'sgd'"),
        ("{optimizer: [sgd, adan]}", r"when\.optimizer\[1\]: optimizer is never 'adan'"),
        ("{optimizer: {gt: 1}}", "optimizer is no number"),
        ("{lr: {gt: fast}}", r"when\.lr\.gt: must be a number, got 'fast'"),
        ("{lr: 1}", r"lr is never 1: it lies in 0\.0001 to 0\.01"),
        ("{lr: {ge: 1}}", r"when\.lr\.ge: lr is never at least 1: it lies in 0\.0001 to 0\.01; so \w+ would never"),
        ("{lr: {gt: 1e-2}}", r"when\.lr\.gt: lr is never above 0\.01"),
        ("{lr: {lt: 1e-4}}", r"when\.lr\.lt: lr is never below 0\.0001"),
        ("[{optimizer: sgd}, {lr: {le: 1e-5}}]", r"when\[1\]\.lr\.le: lr is never at most 1e-05"),
        ("{optimizer: {not_in: [sgd, adamw, radam]}}", r"not_in: optimizer is never none of .*: it is one of "),
        ("{lr: {above: 1}}", "unknown relation 'above'"),
        ("{lr: {not_in: 1e-3}}", r"when\.lr\.not_in: must be a list of values"),
        ("{windows: bne}", r"when\.windows: unknown window set 'bne'. Did you mean 'bone'"),
        ("{windows: subdural}", "windows is never 'subdural'"),
        ("{positive_weights: [3, 1, 1, 1, 1, 1]}", r"positive_weights is never \[3, 1, 1, 1, 1, 1\]"),
        ("{beta1: {gt: 0.9}}", "beta1 is no number"),
        ("{optimizer: null}", "has no value"),
        ("{lr: {ge: {parametr: neighbours}}}", r"when\.lr\.ge: must be a value or {parameter: NAME}"),
        ("{lr: {ge: {parameter: 3}}}", r"when\.lr\.ge: must be a value or {parameter: NAME}"),
        ("{lr: {ge: {parameter: neighbors}}}", r"ge\.parameter: unknown parameter 'neighbors' .*'neighbours'"),
        ("{lr: {ge: {parameter: lr}}}", r"unknown parameter 'lr' to compare with"),
        ("{lr: {ge: {parameter: optimizer}}}", "optimizer is no number"),
        ("{lr: {in: {parameter: neighbours}}}", r"when\.lr\.in: must be a list of values"),
        ("sgd", "must map parameters to values"),
        ("[]", "must map parameters to values"),
        ("{}", "must map parameters to values"),
    ],
)
def test_mistakes_are_reported_where_they_stand(tmp_path: Path, when: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        condition(tmp_path, when)
    assert str(caught.value).startswith(f"{tmp_path / 'space.yaml'}:12:")


def test_no_when_is_no_condition(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(PARENTS)
    assert read_condition(read_yaml(path), "optimizer", {}) == ()


def constraints(tmp_path: Path, written: str) -> tuple[Constraint, ...]:
    path = tmp_path / "space.yaml"
    path.write_text(f"{PARENTS}constraints: {written}\n")
    document = read_yaml(path)
    domains = {key: read_domain(document, key, {}) for key in document.mapping("parameters")}
    return read_constraints(document, domains)


FEW = Test("neighbours", "le", 1)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[{neighbours: {le: 1}}]", (Constraint((FEW,)),)),
        (
            "[{neighbours: {le: 1}, when: {optimizer: sgd}}]",
            (Constraint((FEW,), ((Test("optimizer", "eq", "sgd"),),)),),
        ),
        (
            "[{neighbours: {le: 1}, when: [{optimizer: sgd}, {lr: {gt: 1e-3}}]}]",
            (Constraint((FEW,), ((Test("optimizer", "eq", "sgd"),), (Test("lr", "gt", 1e-3),))),),
        ),
        (
            "[{neighbours: {ne: {parameter: lr}}}, {windows: [brain, bone], beta1: null}]",
            (
                Constraint((Test("neighbours", "ne", Reference("lr")),)),
                Constraint((Test("windows", "in", ("brain", "bone")), Test("beta1", "eq", "none"))),
            ),
        ),
        ("[]", ()),
        ("", ()),
    ],
)
def test_every_form_of_constraint(tmp_path: Path, written: str, expected: tuple[Constraint, ...]) -> None:
    assert constraints(tmp_path, written) == expected


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{neighbours: 1}", r":12:14: constraints: must be a list of what must hold, as in `- {batch_size"),
        ("[neighbours]", r"constraints\[0\]: must map parameters to values"),
        ("[{when: {optimizer: sgd}}]", r"constraints\[0\]: must map parameters to values"),
        ("[{neighbors: 1}]", r"constraints\[0\]\.neighbors: unknown parameter 'neighbors'\. Did you mean 'neighbours'"),
        ("[{lr: {gte: 1}}]", r"constraints\[0\]\.lr\.gte: unknown relation 'gte'\. Did you mean 'gt'"),
        ("[{optimizer: sdg}]", r"optimizer is never 'sdg'\. Did you mean 'sgd'"),
        ("[{lr: {ge: 1e-3}, when: {lrr: 3}}]", r"constraints\[0\]\.when\.lrr: unknown parameter 'lrr'"),
        ("[{lr: {ge: 1e-3}, when: []}]", r"constraints\[0\]\.when: must map parameters to values"),
        (
            "[{loss: bce}, {lr: {ge: {parameter: lrr}}}]",
            r"constraints\[1\]\.lr\.ge\.parameter: unknown parameter 'lrr'",
        ),
    ],
)
def test_mistakes_in_constraints_are_reported_where_they_stand(tmp_path: Path, written: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        constraints(tmp_path, written)
    assert str(caught.value).startswith(f"{tmp_path / 'space.yaml'}:12:")
