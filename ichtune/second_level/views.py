"""SeriesView: what a model of the second level sees, slices in the order of their series.

Dimension key: M members, R slices, Q series, L labels, D embedding components, K folds.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ichtune.errors import DataError

#: Columns of the SliceTable that say how a slice was acquired.
METADATA_COLUMNS = (
    "slice_thickness_mm",
    "tilt_deg",
    "pixel_spacing_mm",
    "window_center_hu",
    "window_width_hu",
    "rows_px",
)


@dataclass(frozen=True)
class SeriesView:
    """Slices with the predictions of M members, sorted by series and by their place in it.

    Attributes:
        image_ids: the slices (R,), objects.
        patient_R: their patients, objects.
        series_R: number of each slice's series, int64, not decreasing, from 0 to Q - 1.
        z_mm_R: position along the slice normal, mm; NaN where it is not known.
        p_MRL: probabilities of the members in [0, 1], float64. For slices that are learnt from or scored they are
            out-of-fold, for others those of one fold's model of each member.
        metadata_RC: the columns ``METADATA_COLUMNS``, float64, NaN where unknown.
        e_RD: principal components of the members' embeddings side by side, float32; None where they are not asked for.
    """

    image_ids: np.ndarray
    patient_R: np.ndarray
    series_R: np.ndarray
    z_mm_R: np.ndarray
    p_MRL: np.ndarray
    metadata_RC: np.ndarray
    e_RD: np.ndarray | None = None

    def __post_init__(self) -> None:
        steps = np.diff(self.series_R, prepend=0)
        if len(self.series_R) and (self.series_R[0] != 0 or ((steps != 0) & (steps != 1)).any()):
            raise DataError("slices of a view must be sorted by series, numbered from 0 without a gap")

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def starts(self) -> np.ndarray:
        """First row of each series, int64 (Q,)."""
        return np.flatnonzero(np.diff(self.series_R, prepend=-1))

    @property
    def lengths(self) -> np.ndarray:
        """Slices of each series, int64 (Q,)."""
        return np.bincount(self.series_R) if len(self) else np.empty(0, dtype=np.int64)

    @property
    def places(self) -> np.ndarray:
        """Place of each slice in its series, from 0, int64 (R,)."""
        return np.arange(len(self)) - self.starts[self.series_R] if len(self) else np.empty(0, dtype=np.int64)

    def take(self, rows: np.ndarray) -> "SeriesView":
        """Return the view of some rows, ascending row numbers or a mask (R,); series are numbered anew."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        series = np.unique(self.series_R[index], return_inverse=True)[1]
        return SeriesView(
            image_ids=self.image_ids[index],
            patient_R=self.patient_R[index],
            series_R=series,
            z_mm_R=self.z_mm_R[index],
            p_MRL=self.p_MRL[:, index],
            metadata_RC=self.metadata_RC[index],
            e_RD=None if self.e_RD is None else self.e_RD[index],
        )

    def with_predictions(self, p_MRL: np.ndarray, e_RD: np.ndarray | None = None) -> "SeriesView":
        """Return the same slices as other models of the members predict them."""
        return replace(self, p_MRL=p_MRL, e_RD=e_RD)


def in_series_order(slices: pd.DataFrame) -> np.ndarray:
    """Return positions of the rows of a SliceTable, sorted by series and by ``slice_rank``: int64.

    Raises:
        DataError: a slice without a place in its series.
    """
    if (slices["slice_rank"] < 0).any():
        bad = slices["image_id"][slices["slice_rank"] < 0].iloc[0]
        raise DataError(f"slice {bad!r} has no place in its series; run `ichtune prepare` again")
    keys = (slices["slice_rank"].to_numpy(), slices["series_instance_uid"].to_numpy(object).astype(str))
    return np.lexsort(keys)


def view_of(slices: pd.DataFrame, p_MRL: np.ndarray, e_RD: np.ndarray | None = None) -> SeriesView:
    """Return the view of rows of a SliceTable that are sorted already; predictions in the order of the rows."""
    uids = slices["series_instance_uid"].to_numpy(object).astype(str)
    return SeriesView(
        image_ids=slices["image_id"].to_numpy(object),
        patient_R=slices["patient_id"].to_numpy(object),
        series_R=np.cumsum(np.append(0, uids[1:] != uids[:-1])) if len(uids) else np.empty(0, dtype=np.int64),
        z_mm_R=slices["z_mm"].to_numpy(np.float64),
        p_MRL=p_MRL,
        metadata_RC=slices[list(METADATA_COLUMNS)].to_numpy(np.float64),
        e_RD=e_RD,
    )
