"""Generated series for the tests of the second level: a truth that comes in runs, and members that see it blurred."""

from collections.abc import Callable

import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.labels import N_LABELS
from ichtune.second_level.views import METADATA_COLUMNS, SeriesView

Generated = tuple[SeriesView, np.ndarray]


@pytest.fixture(autouse=True)
def _files_need_not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power fails here: waiting for the disk took most of the time of tests that write runs."""
    monkeypatch.setattr("ichtune.tables.os.fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def generated_series() -> Callable[..., Generated]:
    """Return what makes a view of series, and the labels (R, L) of its slices.

    A label is on in one run of slices of some series; each member sees it with an error of its own in every slice, so
    that the neighbours of a slice tell what it is.
    """

    def make(
        n_series: int = 40, n_members: int = 2, seed: int = 0, lengths: tuple[int, int] = (8, 16), noise: float = 1.5
    ) -> Generated:
        rng = np.random.default_rng(seed)
        length_Q = rng.integers(lengths[0], lengths[1] + 1, n_series)
        series_R = np.repeat(np.arange(n_series), length_Q)
        n_rows = len(series_R)
        place_R = np.arange(n_rows) - np.repeat(np.cumsum(length_Q) - length_Q, length_Q)
        y_RL = np.zeros((n_rows, N_LABELS))
        for label in range(N_LABELS):
            first_Q = (rng.random(n_series) * length_Q).astype(int)
            long_Q = np.where(rng.random(n_series) < 0.5, rng.integers(2, 9, n_series), 0)
            y_RL[:, label] = (place_R >= first_Q[series_R]) & (place_R < (first_Q + long_Q)[series_R])
        z_RL = 4.0 * y_RL - 2.5
        p_MRL = from_logits(z_RL + noise * rng.standard_normal((n_members, n_rows, N_LABELS)))
        metadata_RC = rng.standard_normal((n_series, len(METADATA_COLUMNS)))[series_R]
        view = SeriesView(
            image_ids=np.array([f"S{row:05d}" for row in range(n_rows)], dtype=object),
            patient_R=np.array([f"P{series:04d}" for series in series_R], dtype=object),
            series_R=series_R,
            z_mm_R=5.0 * place_R + rng.random(n_series)[series_R],
            p_MRL=p_MRL,
            metadata_RC=metadata_RC,
            e_RD=rng.standard_normal((n_rows, 4)).astype(np.float32),
        )
        return view, y_RL

    return make
