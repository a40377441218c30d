"""Telling generated data from real data: a phantom's folder holds a manifest."""

from pathlib import Path

#: The manifest that ``ichtune phantom`` writes.
MANIFEST = "phantom.json"
#: What every figure on a phantom is said to be on.
GENERATED_DATA = "generated data (phantom)"


def find_phantom(folder: Path) -> Path | None:
    """Return the phantom's folder.

    Args:
        folder: a phantom, or the folder in it that holds its train or test files.

    Returns:
        The folder that holds the manifest; None where nothing says that the data is generated.
    """
    here = folder.resolve()
    return next((place for place in (here, here.parent) if (place / MANIFEST).is_file()), None)
