"""JSON exactly as JavaScript's `JSON.stringify` writes it.

Receivers exist that verify a signature over the body that they have parsed and serialised again: what we sign must be
what comes of that.
"""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

DEEPEST = 100
"""Levels of a value that a customer gives; what is deeper is an attack, not a message."""

_LARGEST_ARRAY_INDEX = 2**32 - 2  # ECMA-262 §6.1.7
_SURROGATE = re.compile("[\ud800-\udfff]")


def stringify(value: Any, levels: int = DEEPEST) -> str:
    """A JSON value, its members in JavaScript's order. Raises `ValueError` for one of more than `levels` levels."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return _string(value)
        case int() | float():
            return _number(value)
        case _ if levels == 0:
            raise ValueError("nested too deeply")
        case list():
            return "[" + ",".join([stringify(item, levels - 1) for item in value]) + "]"
        case _:
            members = in_order(value).items()
            return "{" + ",".join([f"{_string(key)}:{stringify(item, levels - 1)}" for key, item in members]) + "}"


def in_order(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that are array indexes first, by number, then the others as they came: what a JavaScript object does."""
    indexes = sorted((key for key in values if _is_array_index(key)), key=int)
    return {key: values[key] for key in (*indexes, *(key for key in values if not _is_array_index(key)))}


def _is_array_index(key: str) -> bool:
    digits = key.isascii() and key.isdecimal() and len(key) <= len(str(_LARGEST_ARRAY_INDEX))
    return digits and str(int(key)) == key and int(key) <= _LARGEST_ARRAY_INDEX


def _string(text: str) -> str:
    """Half a surrogate pair is escaped (ECMA-262 §25.5.2.3), since no UTF-8 can carry it."""
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", encode_basestring(text))


def _number(value: float) -> str:
    """A number as ECMA-262 §6.1.6.1.20 prints a double: its shortest digits, an exponent from 1e21 and below 1e-6."""
    try:
        double = float(value)
    except OverflowError:
        return "null"
    if not math.isfinite(double):
        return "null"
    sign, places, exponent = Decimal(repr(double)).normalize().as_tuple()
    digits, point = "".join(map(str, places)), len(places) + int(exponent)
    return ("-" if sign and double else "") + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    """`0.<digits>` times ten to the `point`."""
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return digits if digits == "0" else f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
