"""BlendSpec: which members are combined and how, read from an ``ensembles/*.yaml``."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ichtune.ensemble.blenders.table import create_blender
from ichtune.ensemble.members.member_names import Wanted, is_wanted
from ichtune.ensemble.post_processing.steps import DEFAULT_STEPS, STEPS
from ichtune.errors import ConfigError, nearest
from ichtune.metrics import CLIP
from ichtune.yaml_positions import YamlDocument, read_yaml

SPEC_VERSION = 1
#: The widest clip that still lets a prediction say anything: one part in twenty.
MAX_CLIP = 0.05
#: What ``post_processing`` says where nothing is to be tried.
NO_STEPS = "none"
#: Keys of older files, and what is written today.
OLD_KEYS = {
    "any_rule": "the key is now `post_processing`: write `post_processing: [any_at_least_max]` for at_least_max, and "
    "`post_processing: none` for none"
}


@dataclass(frozen=True)
class BlendSpec:
    """How to turn the runs of a workspace into one submission.

    Attributes:
        version: of the file's grammar.
        members: ``all`` complete runs, ``{"top": k}`` by out-of-fold loss, or a list of what ``resolve_members`` reads:
            recipe_ids, names, ``{"search": name}`` and ``{"level": 2}``.
        blender: a name from ``ichtune.ensemble.blenders.table.BLENDERS``.
        parameters: the blender's settings.
        post_processing: names from ``ichtune.ensemble.post_processing.steps.STEPS`` in the order in which they are
            tried, or ``none``; a step is applied only where it helps.
        clip: probabilities are clipped to [clip, 1 - clip] at the end.
    """

    version: int = SPEC_VERSION
    members: str | Mapping[str, int] | tuple[Wanted, ...] = "all"
    blender: str = "auto"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    post_processing: str | tuple[str, ...] = DEFAULT_STEPS
    clip: float = CLIP

    def __post_init__(self) -> None:
        if self.version != SPEC_VERSION or isinstance(self.version, bool):
            raise ConfigError(f"key 'version' must be {SPEC_VERSION}, got {self.version!r}")
        object.__setattr__(self, "members", _members(self.members))
        if not isinstance(self.blender, str):
            raise ConfigError(f"key 'blender' must be a name, got {self.blender!r}")
        if not isinstance(self.parameters, Mapping):
            raise ConfigError(f"key 'parameters' must map settings to values, got {self.parameters!r}")
        create_blender(self.blender, self.parameters)
        real = isinstance(self.clip, int | float) and not isinstance(self.clip, bool)
        if not (real and CLIP <= self.clip <= MAX_CLIP):
            raise ConfigError(f"key 'clip' must be a number between {CLIP:g} and {MAX_CLIP:g}, got {self.clip!r}")
        object.__setattr__(self, "post_processing", _steps(self.post_processing))

    @property
    def n_top(self) -> int | None:
        """How many members to keep by out-of-fold loss; None keeps all."""
        return self.members["top"] if isinstance(self.members, Mapping) else None

    @property
    def wanted(self) -> tuple[Wanted, ...] | None:
        """The members as they are listed; None takes every complete run."""
        return self.members if isinstance(self.members, tuple) else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = asdict(self)
        plain["members"] = list(self.members) if isinstance(self.members, tuple) else self.members
        plain["post_processing"] = list(self.post_processing) or NO_STEPS
        return plain


def read_spec(path: Path) -> BlendSpec:
    """Read an ensemble file.

    Raises:
        ConfigError: unreadable YAML, an unknown key or a value that cannot be used; names the key, and the
            file with line and column.
        StorageError: the file may not be read.
    """
    document = read_yaml(path)
    values = document.value
    if not isinstance(values, dict):
        raise document.error(f"must map keys to values, as in `blender: convex`, got {values!r}")
    for key, advice in OLD_KEYS.items():
        if key in values:
            raise ConfigError(f"{document.where(key)}: unknown key {key!r}: {advice}")
    document.check_keys([f.name for f in fields(BlendSpec)])
    error = _failure(values)
    if error is not None:
        raise _placed(document, values, error)
    return BlendSpec(**values)


def _placed(document: YamlDocument, values: dict[str, Any], error: ConfigError) -> ConfigError:
    """Blame the key without which the file would do; with several mistakes, the first that fails alone."""
    for key in reversed(values):  # the parameters before the blender that does not have them
        if _failure({name: value for name, value in values.items() if name != key}) is None:
            return ConfigError(f"{document.where_value(key)}: {error}")
    for key, value in values.items():
        alone = _failure({key: value})
        if alone is not None:
            return ConfigError(f"{document.where_value(key)}: {alone}")
    return ConfigError(f"{document.where_value()}: {error}")


def _failure(values: dict[str, Any]) -> ConfigError | None:
    try:
        BlendSpec(**values)
    except ConfigError as error:
        return error
    return None


def _members(value: Any) -> str | dict[str, int] | tuple[Wanted, ...]:
    if value == "all":
        return "all"
    if isinstance(value, Mapping):
        if set(value) != {"top"}:
            raise ConfigError(f"key 'members': a mapping must be {{top: k}}, got {dict(value)!r}")
        n_top = value["top"]
        if not isinstance(n_top, int) or isinstance(n_top, bool) or n_top < 1:
            raise ConfigError(f"key 'members': top must be a whole number of at least 1, got {n_top!r}")
        return {"top": n_top}
    if isinstance(value, list | tuple) and value and all(is_wanted(item) for item in value):
        named = [" ".join(map(str, *item.items())) if isinstance(item, Mapping) else item for item in value]
        if len(set(named)) < len(named):
            raise ConfigError(f"key 'members' names a run twice: {list(value)}")
        return tuple(dict(item) if isinstance(item, Mapping) else item for item in value)
    raise ConfigError(
        "key 'members' must be `all`, `{top: k}` or a list of recipe_ids in quotes, names, `{search: NAME}` and "
        f"`{{level: 2}}`, got {value!r}"
    )


def _steps(value: Any) -> tuple[str, ...]:
    if value == NO_STEPS:
        return ()
    if not isinstance(value, list | tuple):
        raise ConfigError(f"key 'post_processing' must be a list of steps, or {NO_STEPS}, got {value!r}")
    for name in value:
        if not isinstance(name, str) or name not in STEPS:
            raise ConfigError(f"key 'post_processing': unknown step {name!r}. {nearest(str(name), STEPS)}")
    if len(set(value)) < len(value):
        raise ConfigError(f"key 'post_processing' names a step twice: {list(value)}")
    for name in value[:-1]:
        if STEPS[name].is_transductive:
            raise ConfigError(f"key 'post_processing': {name} must be the last step, since it acts on a test set alone")
    return tuple(value)
