"""The reader: bytes of a file to slices in Hounsfield units, or reasons; the only room that knows pydicom."""
