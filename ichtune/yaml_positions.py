"""Reading YAML that people write: plain data, and where in the file each key and value stands.

Read strictly, so that a file means what it looks like: ``1e-4`` is a number, ``no`` is text, a key stands
once. Tags, anchors, aliases and several documents in one file are refused.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ichtune.errors import ConfigError, StorageError, nearest

#: Larger files are refused unread: a configuration written by a person is far smaller.
MAX_BYTES = 200_000
#: Deeper nesting is refused: no configuration needs it.
MAX_DEPTH = 30

Keys = tuple[str | int, ...]
Position = tuple[int, int]


@dataclass(frozen=True)
class YamlDocument:
    """A YAML file's plain data and its positions.

    Attributes:
        path: the file.
        value: dicts, lists, str, int, float, bool and None.
        key_positions: (line, column) from 1 of each mapping key and list entry, by its path of keys.
        value_positions: (line, column) from 1 of each value, by its path of keys.
        grafts: for paths of keys that were taken over from another document, that document and the keys there; they
            hold for all that lies below as well.
    """

    path: Path
    value: Any
    key_positions: dict[Keys, Position]
    value_positions: dict[Keys, Position]
    grafts: Mapping[Keys, tuple["YamlDocument", Keys]] = field(default_factory=dict)

    def source(self, *keys: str | int) -> tuple["YamlDocument", Keys]:
        """Return the document in whose file a key really stands, and the path of keys under which it stands there."""
        for n_kept in range(len(keys), 0, -1):
            if keys[:n_kept] in self.grafts:
                document, there = self.grafts[keys[:n_kept]]
                return document.source(*there, *keys[n_kept:])
        return self, keys

    def where(self, *keys: str | int) -> str:
        """Return ``file:line:column`` of a key; where the file does not have it, of its nearest parent.

        Args:
            keys: path from the top, as in ``("parameters", "lr", "low")``; list entries by index.
        """
        document, there = self.source(*keys)
        return document._nearest(document.key_positions, there)

    def where_value(self, *keys: str | int) -> str:
        """Return ``file:line:column`` of the value under a key, otherwise as ``where``."""
        document, there = self.source(*keys)
        return document._nearest(document.value_positions, there)

    def error(self, message: str, *keys: str | int) -> ConfigError:
        """Return the error to raise for the value under a key: its place, its key there and the message."""
        document, there = self.source(*keys)
        named = f"{dotted(there)}: " if there else ""
        included = "" if document.path == self.path else f" (included by {self.path})"
        return ConfigError(f"{self.where_value(*keys)}: {named}{message}{included}")

    def mapping(self, *keys: str | int) -> dict[str, Any]:
        """Return the mapping under a key; empty where the key is absent or its value is empty.

        Raises:
            ConfigError: something else than a mapping stands there.
        """
        value = self.get(*keys)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(f"must be a mapping of keys to values, got {value!r}", *keys)
        return value

    def get(self, *keys: str | int) -> Any:
        """Return the value under a path of keys, None where there is none."""
        value = self.value
        for key in keys:
            entry = isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value)
            if not (entry or (isinstance(value, dict) and key in value)):
                return None
            value = value[key]
        return value

    def check_keys(self, known: Collection[str], *keys: str | int) -> None:
        """Refuse every key of a mapping that is not among the known ones.

        Raises:
            ConfigError: names the key, its place and the nearest known one.
        """
        for key in self.mapping(*keys):
            if key not in known:
                inside = f" in {dotted(keys)}" if keys else ""
                place = self.where(*keys, key)
                raise ConfigError(f"{place}: unknown key {key!r}{inside}. {nearest(str(key), known)}")

    def _nearest(self, positions: dict[Keys, Position], keys: Keys) -> str:
        for n_kept in range(len(keys), -1, -1):
            if keys[:n_kept] in positions:
                line, column = positions[keys[:n_kept]]
                return f"{self.path}:{line}:{column}"
        return str(self.path)


def dotted(keys: Keys) -> str:
    """Return a path of keys as a person writes it: ``parameters.windows[2]``."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def read_yaml(path: Path) -> YamlDocument:
    """Read one YAML file strictly.

    Args:
        path: the file; UTF-8, one document, at most ``MAX_BYTES``.

    Raises:
        ConfigError: no such file, not UTF-8, too large, not YAML, empty, or with a duplicate key, a tag, an
            anchor or an alias; every one with file, line and column where there is one.
        StorageError: the file may not be read.
    """
    text = _read_text(path)
    try:
        _refuse_cleverness(path, text)
        # The C loader of ruamel.yaml is another dialect (YAML 1.1): pure reads 1.2.
        root = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        raise ConfigError(f"{_mark(path, error)}: not YAML: {_problem(error)}") from None
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    if root is None:
        raise ConfigError(f"{path}: the file is empty; expected keys and values")
    reader = _NodeReader(path)
    value = reader.read(root, ())
    return YamlDocument(path, value, reader.key_positions, reader.value_positions)


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES:,} bytes; this is no configuration file")
        return path.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"cannot read {path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"cannot read {path}: it is a folder; expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None


def _refuse_cleverness(path: Path, text: str) -> None:
    n_documents = depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        kind = type(event).__name__
        n_documents += kind == "DocumentStartEvent"
        depth += kind.endswith(("SequenceStartEvent", "MappingStartEvent"))
        depth -= kind.endswith(("SequenceEndEvent", "MappingEndEvent"))
        what = ""
        if kind == "AliasEvent":
            what = f"the alias *{event.anchor} is not allowed; write the value out"
        elif getattr(event, "anchor", None):
            what = f"the anchor &{event.anchor} is not allowed; write the value out where it is needed"
        elif getattr(event, "tag", None):
            what = f"the tag {event.tag} is not allowed; expected plain values"
        elif getattr(event, "version", None):
            what = "a %YAML line is not allowed; the file is read as YAML 1.2"
        elif depth > MAX_DEPTH:
            what = f"nested more than {MAX_DEPTH} levels deep; write it flatter"
        elif n_documents > 1:
            what = "a second document (after ---) is not allowed; one file is one configuration"
        if what:
            mark = event.start_mark
            raise ConfigError(f"{path}:{mark.line + 1}:{mark.column + 1}: {what}")


def _mark(path: Path, error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)


def _problem(error: MarkedYAMLError) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    return ", ".join(parts) or "cannot be read"


class _NodeReader:
    """Turns composed nodes into plain data and remembers where each stood."""

    def __init__(self, path: Path) -> None:
        self.key_positions: dict[Keys, Position] = {}
        self.value_positions: dict[Keys, Position] = {}
        self._path = path
        self._constructor = YAML(typ="safe", pure=True).constructor

    def read(self, node: Node, keys: Keys) -> Any:
        position = _position(node)
        self.value_positions[keys] = position
        self.key_positions.setdefault(keys, position)
        if isinstance(node, MappingNode):
            return self._mapping(node, keys)
        if isinstance(node, SequenceNode):
            return [self.read(entry, (*keys, i)) for i, entry in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: MappingNode, keys: Keys) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line, column = _position(key_node)
            place = f"{self._path}:{line}:{column}"
            if not isinstance(key_node, ScalarNode):
                raise ConfigError(f"{place}: a key must be a plain word, got a list or a mapping")
            key = str(key_node.value)
            if key in plain:
                first_line = self.key_positions[(*keys, key)][0]
                inside = f" in {dotted(keys)}" if keys else ""
                raise ConfigError(f"{place}: duplicate key {key!r}{inside}, first on line {first_line}; keep one")
            self.key_positions[(*keys, key)] = (line, column)
            plain[key] = self.read(value_node, (*keys, key))
            if value_node.start_mark.index == value_node.end_mark.index:  # nothing written
                self.value_positions[(*keys, key)] = (line, column)
        return plain

    def _scalar(self, node: Node) -> Any:
        if str(node.tag).rsplit(":", 1)[-1] in ("int", "float", "bool", "null"):
            try:
                return self._constructor.construct_object(node)
            except ValueError:  # an integer of thousands of digits
                line, column = _position(node)
                raise ConfigError(f"{self._path}:{line}:{column}: a number that cannot be read") from None
        return str(node.value)  # text; a date stays as it is written


def _position(node: Node) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1
