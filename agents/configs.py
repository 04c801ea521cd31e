"""An agent's config as JSON, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lpml.agents.builder import AbstractBuilder
from lpml.errors import UsageError


def config_to_json(config: Any) -> dict[str, Any]:
    """Numbers, strings and lists by the names of their fields.

    Raises:
      UsageError: it is no dataclass, or something in it is not as plain as that.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise UsageError(f"save_policy: the config {config!r} is no dataclass")
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for name, value in values.items():
        if not _is_plain(value):
            raise UsageError(
                f"save_policy: {type(config).__name__}.{name}={value!r} cannot be written; "
                "numbers, strings, booleans, None and tuples of them can"
            )
    return values


def config_from_json(
    builder: type[AbstractBuilder], values: Mapping[str, Any], folder: Path
) -> Any:
    """The config, of the type that the builder has when it is made without one.

    Raises:
      UsageError: it has other fields; `folder` is where the values come from.
    """
    make: Any = type(builder().config)
    known = {field.name for field in dataclasses.fields(make)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(
            f"{folder}: {make.__name__} of this lpml has no {unknown}; load the policy with the "
            "lpml that wrote it"
        )
    return make(**{name: _tuples(value) for name, value in values.items()})


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
