"""From a space to recipes: asking a chooser, fixing a start, counting what there is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ichtune.errors import nearest
from ichtune.second_level_recipe import AnyRecipe
from ichtune.space.conditions import is_active
from ichtune.space.domains import (
    Choice,
    Chooser,
    Domain,
    Integer,
    Option,
    Range,
    is_window_template,
    label_of,
)
from ichtune.space.model import Parameter, Space
from ichtune.space.settings import SettingError
from ichtune.windows import DicomWindow, resolve_windows


@dataclass(frozen=True)
class Proposal:
    """One point of a space.

    Attributes:
        parameters: value of each active searched parameter by its flat name (``lr``, ``windows``,
            ``windows[1][0].center``); a window set, weights of labels and none stand there by their label.
        recipe: the whole recipe.
        violated: the first constraint of the space that does not hold, in one sentence; None where all hold.
    """

    parameters: dict[str, Any]
    recipe: AnyRecipe
    violated: str | None = None


@dataclass(frozen=True)
class Draw:
    """What a chooser answered.

    Attributes:
        flat: as a ``Proposal`` holds them as ``parameters``.
        plain: value of each active parameter by key, fixed ones too, as conditions and constraints compare them.
        values: the recipe's values by key.
    """

    flat: dict[str, Any]
    plain: dict[str, Any]
    values: dict[str, Any]


def propose(space: Space, chooser: Chooser) -> Proposal:
    """Ask a chooser for each active parameter, parents first, and build the recipe.

    Constraints are not looked for but told: whoever asked draws again where ``violated`` says something.

    Args:
        space: the space.
        chooser: decides; a choice of one option is not asked for.

    Raises:
        ConfigError: values that exclude each other; ``read_space`` has tried the corners, so this is rare.
    """
    drawn = draw_values(space, chooser)
    return Proposal(drawn.flat, space.recipe(drawn.values), space.violated(drawn.plain))


def draw_values(space: Space, chooser: Chooser) -> Draw:
    """Ask a chooser for each active parameter, parents first; no recipe is built."""
    flat: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for parameter in space.ordered:
        if not is_active(parameter.when, plain):
            continue
        key, domain = parameter.key, parameter.domain
        if isinstance(domain, Choice):
            option = _choose(key, domain, chooser)
            numbers = {name: inside.draw(name, chooser) for name, inside in option_ranges(key, domain, option).items()}
            values[key] = _filled(key, domain, option, numbers)
            plain[key] = option.plain
            flat |= ({key: option.plain} if len(domain.options) > 1 else {}) | numbers
        else:
            flat[key] = plain[key] = values[key] = domain.draw(key, chooser)
    return Draw(flat, plain, values)


def _choose(key: str, choice: Choice, chooser: Chooser) -> Option:
    if len(choice.options) == 1:
        return choice.options[0]
    label = chooser.categorical(key, choice.labels)
    return choice.options[choice.labels.index(label)]


def _prefix(key: str, choice: Choice, option: Option) -> str:
    return f"{key}[{choice.options.index(option)}]"


def _filled(key: str, choice: Choice, option: Option, numbers: dict[str, Any]) -> Any:
    return option.filled(_prefix(key, choice, option), numbers)


def option_ranges(key: str, choice: Choice, option: Option) -> dict[str, Range]:
    """Return the searched numbers inside one option of a choice, by flat name."""
    return option.ranges(_prefix(key, choice, option))


def fixed_values(space: Space, start: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a whole or partial recipe into what a chooser must answer to get it.

    Args:
        space: the space.
        start: values by recipe key, as in ``start_with``.

    Returns:
        By flat name: the label of a choice, the number of a range. Keys that the space fixes to the same
        value are left out.

    Raises:
        ConfigError: an unknown key, or a value that the space does not hold.
    """
    known = [parameter.key for parameter in space.parameters]
    flat: dict[str, Any] = {}
    for key, value in start.items():
        parameter = space.parameter(key)
        if parameter is None:
            raise SettingError(key, f"{key!r} is not a parameter of this space. {nearest(key, known)}")
        flat |= _fixed(parameter, value)
    return flat


def plain_value(parameter: Parameter, value: Any) -> Any:
    """Return a recipe's value of a parameter as conditions and constraints compare it.

    Raises:
        SettingError: a value that the parameter cannot have; of one option nothing is asked.
    """
    key, domain = parameter.key, parameter.domain
    if not isinstance(domain, Choice):
        return _fixed(parameter, value)[key]
    if len(domain.options) == 1:
        return domain.options[0].plain
    return domain.options[domain.labels.index(_fixed(parameter, value)[key])].plain


def _fixed(parameter: Parameter, value: Any) -> dict[str, Any]:
    key, domain = parameter.key, parameter.domain
    if isinstance(domain, Range):
        if not domain.contains(value):
            raise SettingError(key, f"must be {describe(domain)}, got {value!r}")
        return {key: value}
    for option in domain.options:
        numbers = _match(option, value, option_ranges(key, domain, option), _prefix(key, domain, option))
        if numbers is not None:
            return ({key: option.label} if len(domain.options) > 1 else {}) | numbers
    if len(domain.options) == 1:
        raise SettingError(
            key, f"this space fixes it to {domain.labels[0]}, got {value!r}; make it a choice to vary it"
        )
    raise SettingError(key, f"{value!r} is not among the choices. {nearest(str(value), domain.labels)}")


def _match(option: Option, value: Any, ranges: dict[str, Range], prefix: str) -> dict[str, Any] | None:
    """Return the numbers with which an option becomes the value, None if it cannot."""
    if not isinstance(option.value, tuple):
        same_kind = isinstance(option.value, bool) == isinstance(value, bool)
        return {} if same_kind and option.value == value else None
    if not is_window_template(option.value):
        return {} if isinstance(value, list | tuple) and option.value == tuple(value) else None
    windows = resolve_windows(value)
    if len(windows) != len(option.value):
        return None
    numbers: dict[str, Any] = {}
    for i, (window, pair) in enumerate(zip(windows, option.value, strict=True)):
        if isinstance(pair, str) or isinstance(window, DicomWindow):
            if not (isinstance(pair, str) and isinstance(window, DicomWindow)):
                return None
            continue
        for side, got, wanted in zip(("center", "width"), (window.center_hu, window.width_hu), pair, strict=True):
            if isinstance(wanted, Range) and wanted.contains(got):
                numbers[f"{prefix}[{i}].{side}"] = type(wanted.low)(got)
            elif got != wanted:
                return None
    return numbers if numbers.keys() == ranges.keys() else None


def describe(domain: Domain) -> str:
    """Return a domain in words, for messages and listings."""
    if isinstance(domain, Choice):
        return "one of " + ", ".join(domain.labels) if len(domain.options) > 1 else domain.labels[0]
    step = "" if domain.step in (None, 1) else f" in steps of {domain.step:g}"
    what = "a whole number" if isinstance(domain, Integer) else "a number"
    scale = ", log scale" if domain.log else ""
    return f"{what} from {label_of(domain.low)} to {label_of(domain.high)}{step}{scale}"
