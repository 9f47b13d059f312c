"""Records to JSON columns and back, by their types."""

import re
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(record: type) -> TypeAdapter[Any]:
    if record not in _adapters:
        _adapters[record] = TypeAdapter(record)
    return _adapters[record]


def to_json(record: object) -> Any:
    """A dataclass as plain JSON values; None stays None."""
    return None if record is None else _adapter(type(record)).dump_python(record, mode="json")


def from_json(record: type[T], value: Any) -> T:
    """The inverse of `to_json` for a value that is there."""
    parsed: T = _adapter(record).validate_python(value)
    return parsed


def storable(record: T) -> T:
    """The record with U+FFFD in its texts for what not every database keeps: NUL, and halves of surrogate pairs."""
    return from_json(type(record), _storable(to_json(record)))


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_storable(each) for each in value]
    if isinstance(value, dict):
        return {name: _storable(each) for name, each in value.items()}
    return value


def to_row(record: object, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A dataclass as values of the columns of the same names; nested records become JSON."""
    row: dict[str, Any] = {}
    for item in fields(record):  # type: ignore[arg-type]  # callers give dataclass instances
        if item.name not in without:
            value = getattr(record, item.name)
            row[item.name] = to_json(value) if is_dataclass(value) else value
    return row
