"""What weights have learnt from: patients as marks, and no score for those that are known."""

from pathlib import Path

import pytest
import torch

from ichtune.errors import ConflictError, DataError
from ichtune.training.checkpoint import save_checkpoint
from ichtune.training.provenance import learnt_from, patient_marks


def weights(path: Path, patients: list[str]) -> Path:
    marks = sorted(patient_marks(patients))
    save_checkpoint(path, {"w": torch.zeros(1)}, {"kind": "weights"}, {"learnt_from": marks})
    return path


def test_marks_are_one_a_patient_and_no_names() -> None:
    marks = patient_marks(["Ann", "Bob", "Ann"])
    assert len(marks) == 2
    assert patient_marks(["Bob"]) < marks
    assert not any("Ann" in mark for mark in marks)


def test_a_model_is_refused_where_it_knows_one_of_the_scored(tmp_path: Path) -> None:
    path = weights(tmp_path / "w.safetensors", ["a", "b"])
    seen, about = learnt_from(path, patient_marks(["c", "d"]), "warm_start")
    assert seen == patient_marks(["a", "b"])
    assert about["kind"] == "weights"
    with pytest.raises(ConflictError, match=r"warm_start: .* has learnt from 1 of the 2 patients that would be scored"):
        learnt_from(path, patient_marks(["b", "c"]), "warm_start")


def test_a_model_that_does_not_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match=r"does not say which patients"):
        learnt_from(weights(tmp_path / "w.safetensors", []), patient_marks(["c"]), "pseudo_labels")
    save_checkpoint(tmp_path / "bare.safetensors", {}, {"kind": "weights"})
    with pytest.raises(DataError, match=r"is no record of what bare.safetensors is"):
        learnt_from(tmp_path / "bare.safetensors", patient_marks(["c"]), "warm_start")
