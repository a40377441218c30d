"""Tiny DICOM files for the tests of the data room."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

WriteSlice = Callable[..., Path]


@pytest.fixture
def stored() -> np.ndarray:
    """uint16 (16, 12): every stored value differs, all of them fit in 12 bits."""
    return (np.arange(16 * 12, dtype=np.uint16) * 21).reshape(16, 12)


@pytest.fixture
def write_slice(stored: np.ndarray) -> WriteSlice:
    """Write one CT slice; keywords override tags, a value of None leaves a tag out."""

    def write(path: Path, pixels: np.ndarray | None = None, /, **tags: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(action="ignore"):  # the competition's ids are no valid UIDs
            dataset = make_slice(stored if pixels is None else pixels, **tags)
            dataset.save_as(path, enforce_file_format=True)
        return path

    return write


def make_slice(pixels: np.ndarray, /, **tags: Any) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    if meta.TransferSyntaxUID == ExplicitVRBigEndian:
        pixels = pixels.byteswap()
    dataset = Dataset()
    dataset.file_meta = meta
    uid = tags.pop("SOPInstanceUID", None) or generate_uid()
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": uid,
        "Modality": "CT",
        "PatientID": "P1",
        "PatientName": "Seeded^Name",
        "PatientBirthDate": "19010203",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "InstanceNumber": 1,
        "ImagePositionPatient": [0.0, 0.0, 0.0],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "PixelSpacing": [0.5, 0.5],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "PixelData": pixels.tobytes(),
    }
    for keyword, value in (values | tags).items():
        if value is not None:
            setattr(dataset, keyword, value)
    meta.MediaStorageSOPInstanceUID = uid
    return dataset
