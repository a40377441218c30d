"""Patients who must not be parted: those linked by a study, a series or identical pixels."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ichtune.data.series_geometry import whole_series


def patient_groups(slices: pd.DataFrame) -> pd.Series:
    """Join patients that share a study, a series, or a slice with identical content.

    A person may carry two patient ids, and one scan may have been filed twice: whoever shares any of these is one
    group, also by way of a third patient. Blank slices link nobody, since air looks the same in every head, nor does
    an empty identifier.

    Args:
        slices: a SliceTable; its ``ok`` rows count.

    Returns:
        int64 group of each patient, indexed by patient_id in alphabetical order; groups are numbered from 0 by their
        first patient.
    """
    usable = slices[slices["status"] == "ok"]
    codes, patients = pd.factorize(usable["patient_id"].to_numpy(object), sort=True)
    links = [_links(codes, keys) for keys in link_keys(usable).values()]
    groups = _components(len(patients), np.concatenate(links)) if len(patients) else np.empty(0, dtype=np.int64)
    return pd.Series(groups, index=pd.Index(patients, name="patient_id"))


def link_keys(usable: pd.DataFrame) -> dict[str, pd.Series]:
    """Return what slices share when they may not be parted, by kind; NaN where a slice says nothing.

    Args:
        usable: ``ok`` rows of a SliceTable.
    """
    study, series, content = (
        usable["dicom_study_uid"],
        whole_series(usable["series_instance_uid"]),
        usable["content_hash"].mask(usable["is_blank"].astype(bool), ""),
    )
    return {kind: keys.mask(keys == "") for kind, keys in (("study", study), ("series", series), ("content", content))}


def _links(patients: np.ndarray, keys: pd.Series) -> np.ndarray:
    """Pairs of patients that share a key: each patient with the first one of that key; (n, 2)."""
    key_codes = pd.factorize(keys)[0]
    is_known = key_codes >= 0
    key_codes, patients = key_codes[is_known], patients[is_known]
    if not len(patients):
        return np.empty((0, 2), dtype=np.int64)
    first = np.unique(key_codes, return_index=True)[1]
    first_patient = patients[first][key_codes]
    is_link = patients != first_patient
    return np.unique(np.c_[first_patient, patients][is_link], axis=0)


def _components(n: int, links: np.ndarray) -> np.ndarray:
    graph = coo_array((np.ones(len(links), dtype=np.int8), (links[:, 0], links[:, 1])), shape=(n, n))
    found = connected_components(graph, directed=False)[1]
    # Numbered by their first patient, whatever order the components were found in.
    return np.unique(found, return_index=True)[1].argsort().argsort()[found].astype(np.int64)
