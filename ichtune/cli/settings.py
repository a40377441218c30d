"""Where an option's value comes from: its flag, then ``ICHTUNE_*``, then ``./ichtune.toml``, then its default."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ichtune.errors import ConfigError, StorageError, nearest

SETTINGS_FILE = Path("ichtune.toml")
#: Options that may be set once for every command that has them.
SHARED = ("work", "quiet")

#: For each command: its options as written without dashes in front, and the parameter that each sets.
Commands = Mapping[str, Mapping[str, str]]


@dataclass
class Settings:
    """Values for options whose flag is not given.

    Attributes:
        values: by command and parameter.
        origins: what to name when such a value is refused, by command and parameter.
    """

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[tuple[str, str], str] = field(default_factory=dict)

    def put(self, command: str, parameter: str, value: Any, origin: str) -> None:
        """Set a value; a later one replaces an earlier one."""
        self.values.setdefault(command, {})[parameter] = value
        self.origins[command, parameter] = origin


def read_settings(commands: Commands, environ: Mapping[str, str] = os.environ, path: Path = SETTINGS_FILE) -> Settings:
    """Read the settings file, where there is one, and the environment, which goes before it.

    Args:
        commands: every command and its options.
        environ: ``ICHTUNE_SEARCH_TRIALS=40`` sets ``ichtune search --trials``; ``ICHTUNE_WORK`` and
            ``ICHTUNE_QUIET`` set their option for every command.
        path: TOML; ``trials = 40`` under ``[search]`` does the same, ``work`` and ``quiet`` may stand on top.

    Raises:
        ConfigError: a file that is no TOML, or an unknown command or option in it.
        StorageError: a file that may not be read.
    """
    settings = Settings()
    for command, parameter, value, origin in (*_from_file(commands, path), *_from_environment(commands, environ)):
        settings.put(command, parameter, value, origin)
    return settings


def _from_environment(commands: Commands, environ: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    for command, options in commands.items():
        for option, parameter in options.items():
            word = option.upper().replace("-", "_")
            shared = (f"ICHTUNE_{word}",) if option in SHARED else ()
            for name in (*shared, f"ICHTUNE_{command.upper()}_{word}"):
                if environ.get(name):
                    yield command, parameter, environ[name], name


def _from_file(commands: Commands, path: Path) -> Iterator[tuple[str, str, Any, str]]:
    text = _read_text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    yield from _shared(commands, path, text, document)
    for command, table in document.items():
        if not isinstance(table, dict):
            continue
        place = _place(path, text, "", command)
        if command not in commands:
            raise ConfigError(f"{place}: unknown command [{command}]. {nearest(command, commands)}")
        for key, value in table.items():
            option, place = key.replace("_", "-"), _place(path, text, command, key)
            if option not in commands[command]:
                raise ConfigError(f"{place}: unknown option {key!r} in [{command}]. {nearest(key, commands[command])}")
            yield command, commands[command][option], _plain(value, place), place


def _shared(commands: Commands, path: Path, text: str, document: dict[str, Any]) -> Iterator[tuple[str, str, Any, str]]:
    for key, value in document.items():
        if isinstance(value, dict):
            continue
        place = _place(path, text, "", key)
        if key not in SHARED:
            known = (*SHARED, *(f"[{command}]" for command in commands))
            raise ConfigError(f"{place}: unknown key {key!r} outside of a command's table. {nearest(key, known)}")
        for command, options in commands.items():
            if key in options:
                yield command, options[key], _plain(value, place), place


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, dict):
        raise ConfigError(f"{place}: an option's value must be text, a number, true, false or a list, got a table")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None


def _place(path: Path, text: str, table: str, key: str) -> str:
    """Return ``file:line`` of a key or of a table's head; only the file where it cannot be told."""
    inside = ""
    wanted = re.compile(rf"\s*\[?\s*[\"']?{re.escape(key)}[\"']?\s*[\]=.]")
    for number, line in enumerate(text.splitlines(), start=1):
        if wanted.match(line) and inside == table:
            return f"{path}:{number}"
        head = re.match(r"\s*\[\s*[\"']?([\w-]+)", line)
        inside = head.group(1) if head else inside
    return str(path)
