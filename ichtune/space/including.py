"""``include``: spaces that stand on other files, read as one document in which every key knows its own file.

What an included file says is a default for the file that includes it. Sections are merged key by key, ``parameters`` by
parameter; ``constraints`` add up; everything else, lists too, is replaced whole.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ichtune.errors import ConfigError, nearest
from ichtune.shipped import find_yaml
from ichtune.space.levels import KEY as LEVEL_KEY
from ichtune.space.levels import level_of
from ichtune.space.reading_settings import SHORTHANDS, SYNONYMS
from ichtune.yaml_positions import Keys, YamlDocument, read_yaml

VERSION = 1
TOP_KEYS = (
    "version",
    "level",
    "name",
    "include",
    "remove",
    "base",
    "metric",
    "search",
    "folds",
    "resources",
    "train",
    "parameters",
    "constraints",
    "start_with",
)
#: Sections that ``remove`` takes away whole.
REMOVABLE = ("base", "constraints", "start_with")
#: Keys that say something of one file alone.
_OF_ONE_FILE = ("version", LEVEL_KEY, "name", "include", "remove")
#: Sections that are merged key by key.
_MERGED: tuple[Keys, ...] = (
    ("metric",),
    ("search",),
    ("search", "early_stop"),
    ("folds",),
    ("resources",),
    ("train",),
    ("parameters",),
)

Grafts = dict[Keys, tuple[YamlDocument, Keys]]


def read_including(path: Path) -> YamlDocument:
    """Read a space's file and what it includes, directly and indirectly, as one document.

    Raises:
        ConfigError: a file that is no space's, one that includes itself, or something to remove that is not included;
            with the place in the file in which it stands.
    """
    return _read(path, (), {})


def find_beside(name: str, folder: Path, kind: str) -> Path:
    """Return the file that a name in a YAML file stands for: beside that file, from here, or a shipped one.

    Args:
        name: a path, or a shipped file's name.
        folder: of the YAML file.
        kind: of the shipped files.

    Raises:
        ConfigError: there is none.
    """
    beside = folder / name
    return beside if beside.is_file() else find_yaml(name, kind)


def _read(path: Path, chain: tuple[Path, ...], known: dict[Path, YamlDocument]) -> YamlDocument:
    """Read one file; ``chain`` leads to it, ``known`` holds those that have been read."""
    here = path.resolve()
    if here not in known:
        document = read_yaml(path)
        if not isinstance(document.value, dict):
            raise document.error(f"a search space maps keys to values; expected some of {', '.join(TOP_KEYS)}")
        document.check_keys(TOP_KEYS)
        version = document.value.get("version", VERSION)
        if version != VERSION or isinstance(version, bool):
            raise document.error(f"this ichtune reads version {VERSION} of the grammar, got {version!r}", "version")
        level_of(document)
        known[here] = _with_included(document, (*chain, here), known)
    return known[here]


def _with_included(document: YamlDocument, chain: tuple[Path, ...], known: dict[Path, YamlDocument]) -> YamlDocument:
    written = document.get("include")
    included: YamlDocument | None = None
    for name, at in _names(document, "include", "a file or a list of files"):
        try:
            path = find_beside(name, document.path.parent, "search_spaces")
        except ConfigError as error:
            raise document.error(str(error), *at) from None
        if path.resolve() in chain:
            circle = " -> ".join(one.name for one in (*chain[chain.index(path.resolve()) :], path))
            raise document.error(f"the file includes itself: {circle}; leave one of them out", *at)
        one = _read(path, chain, known)
        _check_level(document, one, at)
        included = one if included is None else _over(one, included)
    if included is None:
        if document.get("remove") is not None and written is None:
            raise document.error("there is nothing to remove from: the file includes no other", "remove")
        return document
    return _over(document, _without(included, document))


def _check_level(document: YamlDocument, included: YamlDocument, at: Keys) -> None:
    """Refuse a file that says another level than the one that includes it."""
    theirs, mine = level_of(included), level_of(document)
    if LEVEL_KEY in included.value and theirs != mine:
        raise document.error(
            f"is of level {theirs.number}, {theirs.what}, and this file of level {mine.number}; write `level: "
            f"{theirs.number}` here, or leave it out",
            *at,
        )


def _names(document: YamlDocument, key: str, what: str) -> list[tuple[str, Keys]]:
    written = document.get(key)
    if written is None:
        return []
    entries: list[tuple[Any, Keys]] = [(written, (key,))]
    if isinstance(written, list):
        entries = [(entry, (key, i)) for i, entry in enumerate(written)]
    for entry, at in entries:
        if not isinstance(entry, str) or not entry:
            raise document.error(f"must be {what}, got {entry!r}", *at)
    return entries


def _without(included: YamlDocument, document: YamlDocument) -> YamlDocument:
    """Return what a file includes without the parameters and sections that it removes."""
    value = dict(included.value)
    grafts: Grafts = {}
    for name, at in _names(document, "remove", "a list of parameters and sections of the included files"):
        parameters = included.mapping("parameters")
        if name in REMOVABLE and name in value:
            value.pop(name, None)
        elif name in parameters:
            value["parameters"] = {k: v for k, v in value["parameters"].items() if k != name}
        else:
            there = [*parameters, *(section for section in REMOVABLE if section in included.value)]
            raise document.error(f"no included file has {name!r}. {nearest(name, there)}", *at)
    starts = value.get("start_with")
    if isinstance(starts, list):
        kept = [(_kept(start, value.get("parameters"), included), i) for i, start in enumerate(starts)]
        value["start_with"] = [start for start, _ in kept if start != {}]
        for n, i in enumerate(i for start, i in kept if start != {}):
            grafts["start_with", n] = (included, ("start_with", i))
    return replace(included, value=value, grafts={**included.grafts, **grafts})


def _kept(start: Any, parameters: Any, included: YamlDocument) -> Any:
    """Return a start of an included file without the parameters that are removed."""
    removed = included.mapping("parameters").keys() - (parameters or {}).keys()
    return {k: v for k, v in start.items() if k not in removed} if isinstance(start, dict) else start


def _over(mine: YamlDocument, theirs: YamlDocument) -> YamlDocument:
    """Return one document: what ``theirs`` says where ``mine`` says nothing."""
    grafts: Grafts = {}
    value = dict(mine.value)
    for key in theirs.value:
        if key in _OF_ONE_FILE:
            continue
        if key == "constraints":
            value[key] = _added_up(mine, theirs, grafts)
        else:
            value[key] = _merged(mine.value.get(key), theirs.value[key], (key,), (mine, theirs), grafts)
    return replace(mine, value=value, grafts={**mine.grafts, **grafts})


def _merged(mine: Any, theirs: Any, at: Keys, documents: tuple[YamlDocument, YamlDocument], grafts: Grafts) -> Any:
    """Return what stands under one path of keys, and note of what is taken from ``theirs`` where it stands."""
    if mine is None:
        grafts[at] = documents[1], at
        return theirs
    if at not in _MERGED:
        return mine
    word = SHORTHANDS.get(at)
    if isinstance(mine, str) and word:
        mine = {word: mine}
        grafts[*at, word] = documents[0], at
    their_place: Keys | None = None
    if isinstance(theirs, str) and word:
        theirs, their_place = {word: theirs}, at
    if not (isinstance(mine, dict) and isinstance(theirs, dict)):
        return mine
    synonyms = SYNONYMS.get(str(at[-1]), {})
    told = {synonyms.get(key, key) for key in mine}
    value: dict[str, Any] = {}
    for key, their_value in theirs.items():
        below = (*at, key)
        if below in _MERGED:
            value[key] = _merged(mine.get(key), their_value, below, documents, grafts)
        elif key in mine:
            value[key] = mine[key]
        elif synonyms.get(key, key) not in told:
            value[key] = their_value
            grafts[below] = documents[1], their_place or below
    return value | {key: mine[key] for key in mine if key not in value}


def _added_up(mine: YamlDocument, theirs: YamlDocument, grafts: Grafts) -> Any:
    own, included = mine.value.get("constraints"), theirs.value["constraints"]
    if not (isinstance(own, list | None) and isinstance(included, list | None)):
        return _merged(own, included, ("constraints",), (mine, theirs), grafts)
    added: list[Any] = []
    for document, entries in ((theirs, included), (mine, own)):
        for i, entry in enumerate(entries or []):
            if entry not in added:
                grafts["constraints", len(added)] = document, ("constraints", i)
                added.append(entry)
    return added
