"""Checks of single values by their names: options of a call, keys of a block, fields of a configuration."""

import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any


__all__ = ["Check", "check_value", "check_values", "flag", "number", "one_of", "optional", "shown", "several", "whole"]

LARGEST = sys.float_info.max
BOUNDS = {
    "above": (operator.gt, "above"),
    "least": (operator.ge, "of at least"),
    "below": (operator.lt, "below"),
    "most": (operator.le, "of at most"),
}


@dataclass(frozen=True)
class Check:
    """
    What a value must be.

    Attributes:
        expected (`str`): The end of the sentence "got ..., expected ...".
        accepts (`Callable`): Whether a value is so; it takes values of any type.
        read (`Callable`, *optional*): The value in the type that is used from then on, so that NumPy's numbers, and
            8.0 for 8, become Python's own; the value as it is by default.
    """

    expected: str
    accepts: Callable[[Any], bool]
    read: Callable[[Any], Any] = lambda value: value


def check_value(name: str, value: Any, check: Check, where: str = "") -> Any:
    """
    Returns:
        The value, as `check` reads it.

    Raises:
        ValueError: where it is not what `check` expects; the message begins with `where` and has all three.
    """
    if not check.accepts(value):
        raise ValueError(f"{where}got {name}={shown(value)}, expected {check.expected}")
    return check.read(value)


def check_values(values: Mapping[str, Any], checks: Mapping[str, Check], where: str = "") -> dict[str, Any]:
    """The values, those read that `checks` has; `None` stands for the default, and other names stay unread."""
    return {
        name: value if value is None or name not in checks else check_value(name, value, checks[name], where)
        for name, value in values.items()
    }


def number(**bounds: float) -> Check:
    """A finite number within bounds: `above`, `least`, `below`, `most`; `most=math.inf` takes infinity, too."""
    said = [f"{BOUNDS[name][1]} {bound}" for name, bound in bounds.items()]
    limits = {"least": -LARGEST, "most": LARGEST, **bounds}  # integers beyond are no floats, and NaN is nowhere

    def accepts(value: Any) -> bool:
        found = _number_of(value)
        return found is not None and all(BOUNDS[name][0](found, limit) for name, limit in limits.items())

    plain = {(): "a finite number", ("above 0",): "a positive number"}
    return Check(plain.get(tuple(said)) or f"a number {' and '.join(said)}", accepts, _plain)


def whole(least: int, most: int | None = None) -> Check:
    """A whole number within these bounds."""
    expected = f"a whole number from {least} to {most}"
    if most is None:
        expected = "a positive whole number" if least == 1 else f"a whole number of {least} or more"

    def accepts(value: Any) -> bool:
        found = _number_of(value)
        return found is not None and least <= found <= (LARGEST if most is None else most) and found == int(found)

    return Check(expected, accepts, int)


def one_of(*values: str) -> Check:
    return Check(" or ".join(map(repr, values)), lambda value: isinstance(value, str) and value in values)


def several(check: Check, count: int | None = None) -> Check:
    """A list of values that `check` accepts, `count` of them; read as a list."""

    def accepts(value: Any) -> bool:
        items = _as_list(value)
        return items is not None and count in (None, len(items)) and all(map(check.accepts, items))

    expected = f"a list of {'values' if count is None else count}, each {check.expected}"
    return Check(expected, accepts, lambda value: [check.read(item) for item in _as_list(value) or ()])


def optional(check: Check) -> Check:
    return Check(
        f"{check.expected}, or None",
        lambda value: value is None or check.accepts(value),
        lambda value: None if value is None else check.read(value),
    )


def shown(value: Any) -> str:
    """The value as messages show it: not all of what is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _number_of(value: Any) -> Any:
    """A number in a type of Python's, so that comparing does not round it as NumPy's narrow types would; or `None`."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    return value.item() if hasattr(value, "item") else value


def _as_list(value: Any) -> list | None:
    """Lists, tuples and arrays of one dimension as lists."""
    if isinstance(value, list | tuple):
        return list(value)
    return value.tolist() if getattr(value, "ndim", None) == 1 else None


def _plain(value: Real) -> int | float:
    return int(value) if isinstance(value, Integral) else float(value)


flag = Check("True or False", lambda value: isinstance(value, bool))
