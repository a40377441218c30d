"""Every shipped ensemble file reads, says what it is for, and blends generated predictions honestly."""

import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.ensemble.blenders.table import BLENDERS
from ichtune.ensemble.fitting import crossfit_blend, fit_blend
from ichtune.ensemble.spec import BlendSpec, read_spec
from ichtune.labels import N_LABELS
from ichtune.metrics import prior_predictions, weighted_log_loss
from ichtune.shipped import find_yaml, shipped_files

FILES = shipped_files("ensembles")


def generated():
    rng = np.random.default_rng(0)
    z = -2 + 1.7 * rng.standard_normal((300, N_LABELS))
    y = (rng.random(z.shape) < from_logits(z)).astype(float)
    return np.stack([from_logits(z + noise * rng.standard_normal(z.shape)) for noise in (0.7, 0.9, 1.1)]), y


def test_the_named_ensembles_are_shipped():
    assert {"auto", "demo", "mean", "greedy", "rsna"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
class TestShippedEnsemble:
    def test_its_head_says_what_it_is_for_and_how_to_run_it(self, name):
        head = FILES[name].read_text(encoding="utf-8").split("version:")[0]
        assert "# Purpose:" in head
        assert f"# Command: ichtune blend --ensemble {name}\n" in head
        assert all(line.startswith("#") for line in head.splitlines() if line)

    def test_it_is_found_by_name_and_reads_back(self, name):
        spec = read_spec(find_yaml(name, "ensembles"))
        assert spec.blender in BLENDERS
        assert BlendSpec(**spec.to_dict()) == spec

    @pytest.mark.slow  # takes seconds
    def test_it_blends_better_than_the_prior_and_is_clipped(self, name):
        spec = read_spec(FILES[name])
        p, y = generated()
        patient = np.arange(300) // 2
        p_NL = fit_blend(spec, p, y, patient).predict(p)
        assert p_NL.min() >= spec.clip
        assert p_NL.max() <= 1 - spec.clip
        crossfitted = crossfit_blend(spec, p, y, patient % 3, patient)
        assert weighted_log_loss(y, crossfitted) < 0.9 * weighted_log_loss(y, prior_predictions(y, 300))
