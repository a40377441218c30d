"""DICOM in, slices, folds and batches out; the only room that knows pydicom and albumentations."""
