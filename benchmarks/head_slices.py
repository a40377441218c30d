"""Generated 512 x 512 head-like CT slices as DICOM files, for the benchmarks of reading and caching."""

import os
import struct
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SIZE_PX = 512
_UID_DIGITS = 12


def head_slice(rng: np.random.Generator, size_px: int = SIZE_PX) -> np.ndarray:
    """Return stored values of a generated slice, uint16: brain of 30 HU, noise of 8 HU, a skull of 150 by 190 mm."""
    y, x = np.mgrid[:size_px, :size_px] / size_px - 0.5
    r = np.hypot(x / 0.30, y / 0.38) + 0.02 * rng.standard_normal()
    hu = np.where(r < 0.92, 30.0, np.where(r < 1.0, 1000.0, -1000.0)) + 8.0 * rng.standard_normal(r.shape)
    hu[np.hypot(x, y) > 0.5] = -1024  # nothing is reconstructed outside the circular field of view
    return np.clip(np.rint(hu) + 1024, 0, 4095).astype("<u2")


def write_slices(folder: Path, n_files: int, n_different: int = 200, size_px: int = SIZE_PX) -> Path:
    """Write ``n_files`` files; ``n_different`` images are drawn, each file has a UID and a position of its own.

    Files of 512 x 512 pixels take 0.5 MB each. Headers are those of the competition.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    images = [head_slice(rng, size_px).tobytes() for _ in range(min(n_files, n_different))]
    head, uid_at, position_at = _template(size_px)
    for number in range(n_files):
        header = bytearray(head)
        for at in uid_at:
            header[at : at + _UID_DIGITS] = f"1{number:0{_UID_DIGITS - 1}d}".encode()
        header[position_at : position_at + 8] = f"{(number % 32) * 5:08.3f}".encode()
        with open(os.path.join(folder, f"{number:06d}.dcm"), "wb") as file:
            file.write(bytes(header) + images[number % len(images)])
    return folder


def _template(size_px: int) -> tuple[bytes, list[int], int]:
    """The bytes before the pixels, the places of the file's number in its UID, and of its position along z."""
    marker = "9" * _UID_DIGITS
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"1.2.3.{marker}",
        "Modality": "CT",
        "PatientID": "ID_0123abcd",
        "StudyInstanceUID": generate_uid(entropy_srcs=["study"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["series"]),
        "StudyID": "",
        "ImagePositionPatient": [-125.0, -125.0, "7777.777"],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": size_px,
        "Columns": size_px,
        "PixelSpacing": [0.488281, 0.488281],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "WindowCenter": 30,
        "WindowWidth": 80,
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = DicomBytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    n_bytes = size_px * size_px * 2
    head = stream.getvalue() + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, n_bytes)
    places = [at for at in range(len(head)) if head.startswith(marker.encode(), at)]
    return head, places, head.index(b"7777.777")
