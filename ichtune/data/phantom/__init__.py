"""Generated head-CT series with known truth, written as real DICOM files."""
