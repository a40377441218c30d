"""Where the shipped YAML files lie: beside the sources in a checkout, inside the package in a wheel."""

from pathlib import Path

from ichtune.errors import ConfigError, nearest

SHIPPED_KINDS = ("search_spaces", "ensembles", "recipes")


def shipped_folder(kind: str) -> Path:
    """Return the folder of one kind of shipped YAML (``search_spaces``, ``ensembles`` or ``recipes``)."""
    package = Path(__file__).resolve().parent
    installed = package / "_shipped" / kind
    return installed if installed.is_dir() else package.parent / kind


def shipped_files(kind: str) -> dict[str, Path]:
    """Return the shipped files of one kind, by name without ``.yaml``, in alphabetical order."""
    return {path.stem: path for path in sorted(shipped_folder(kind).glob("*.yaml"))}


def find_yaml(name: str, kind: str) -> Path:
    """Resolve what a user wrote, a path or the name of a shipped file, to a file that exists.

    Args:
        name: a path, or a shipped name with or without ``.yaml``. A file on disk wins over a shipped one.
        kind: ``search_spaces``, ``ensembles`` or ``recipes``.

    Raises:
        ConfigError: neither a file nor a shipped name.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_files(kind)
    stem = name.removesuffix(".yaml").removesuffix(".yml")
    if stem in shipped:
        return shipped[stem]
    what = "is a folder, not a file" if path.is_dir() else "no such file"
    raise ConfigError(
        f"cannot read {name!r}: {what}, and no shipped {kind.rstrip('s').replace('_', ' ')} has that name. "
        f"{nearest(stem, shipped)}"
    )
