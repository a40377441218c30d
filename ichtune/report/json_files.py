"""Reading a workspace's JSON files, with a message that names the command that writes them."""

import json
from pathlib import Path
from typing import Any

from ichtune.errors import DataError


def read_json(path: Path, made_by: str) -> Any:
    """Read a JSON file; None where there is none.

    Args:
        path: the file.
        made_by: the command that writes it, without ``ichtune``.

    Raises:
        DataError: the file is no JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no readable JSON ({error}); run `ichtune {made_by}` again") from error


def read_json_object(path: Path, made_by: str) -> dict[str, Any] | None:
    """Read a JSON file that must hold a mapping; None where there is none.

    Raises:
        DataError: the file is no JSON, or holds something else.
    """
    value = read_json(path, made_by)
    if value is not None and not isinstance(value, dict):
        raise DataError(f"{path} must hold a JSON object, got {str(value)[:60]!r}; run `ichtune {made_by}` again")
    return value
