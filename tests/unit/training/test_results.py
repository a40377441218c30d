"""Results of epochs and folds: plain values, read without torch."""

import subprocess
import sys
from dataclasses import asdict, fields

import pytest

from ichtune.training.results import EpochResult, FoldResult


def test_they_go_through_plain_values_and_back() -> None:
    epoch = EpochResult(1, 0.5, 0.25, 1e-3, 2.0, 100.0)
    assert EpochResult(**asdict(epoch)) == epoch
    assert [field.name for field in fields(FoldResult)][:3] == ["recipe_id", "fold", "val_weighted_log_loss"]


@pytest.mark.slow  # an interpreter of its own
def test_reading_them_needs_no_torch() -> None:
    told = "import sys, ichtune.training.results, ichtune.training.run_folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told]).returncode == 0
