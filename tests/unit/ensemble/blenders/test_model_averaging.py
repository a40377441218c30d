import numpy as np
import pytest

from ichtune.ensemble.blenders.model_averaging import ModelAveraging
from ichtune.errors import ConfigError
from ichtune.metrics import label_losses


def test_weights_are_the_tempered_posterior(generated):
    p, y, _ = generated(n_patients=10, n_slices=5)
    likelihood = np.exp(-0.2 * np.stack([label_losses(y, p_NL).sum(axis=0) for p_NL in p]))
    np.testing.assert_allclose(
        ModelAveraging(tempering=0.2).fit(p, y).weights_, likelihood / likelihood.sum(axis=0), rtol=1e-9
    )


def test_untempered_nearly_all_weight_falls_on_one_member(generated):
    p, y, _ = generated(n_patients=300, noises=(0.3, 1.0, 2.0))
    assert ModelAveraging(tempering=1.0).fit(p, y).weights_[0].min() > 0.999
    assert ModelAveraging(tempering=1e-4).fit(p, y).weights_[0].max() < 0.6


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="tempering must be a number above 0 and up to 1, got 0"):
        ModelAveraging(tempering=0)
