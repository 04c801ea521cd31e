"""Annotations as they are needed at run time, and whether a class has what a protocol asks."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

_NO_MEMBERS = {
    "__annotate__",
    "__annotate_func__",
    "__annotations__",
    "__class_getitem__",
    "__init__",
    "__init_subclass__",
    "__new__",
    "__subclasshook__",
}


def signature_of(function: Callable[..., object]) -> inspect.Signature | None:
    """The signature, or `None` where there is none to see (some builtins)."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def unwrapped(service: Callable[..., object]) -> Any:
    """The class or function inside of a partial or of `Service[int]`."""
    while isinstance(service, functools.partial):
        service = service.func
    return typing.get_origin(service) or service


def hints_of(service: Callable[..., object]) -> dict[str, Any]:
    """The annotations of a service's parameters; what cannot be evaluated is left out."""
    target = unwrapped(service)
    if inspect.isclass(target):
        found = evaluated(target) if dataclasses.is_dataclass(target) else {}
        made_by = target.__init__ if target.__init__ is not object.__init__ else target.__new__
        return {**found, **evaluated(made_by)}
    if not inspect.isroutine(target):
        target = type(target).__call__
    return evaluated(target)


def evaluated(owner: Any) -> dict[str, Any]:
    """`{name: annotation}`, evaluated one by one where not all can be."""
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except Exception:  # a name known to type checkers only, or a syntax newer than this Python
        return _evaluated_singly(owner)


def _evaluated_singly(owner: Any) -> dict[str, Any]:
    owner = inspect.unwrap(owner)
    raw = getattr(owner, "__annotations__", {})
    names = getattr(owner, "__globals__", None)
    if names is None:
        module = sys.modules.get(getattr(owner, "__module__", ""), None)
        names = vars(module) if module else {}
    found = {}
    for name, annotation in raw.items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            found.update(typing.get_type_hints(holder, names, include_extras=True))
        except Exception:
            continue
    return found


def plain(hint: Any) -> Any:
    """The annotation without what says nothing about the value: Annotated, NewType, aliases."""
    while True:
        origin = typing.get_origin(hint)
        if origin is Annotated:
            hint = hint.__origin__
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif isinstance(hint, dataclasses.InitVar):
            hint = hint.type
        elif origin in (typing.Final, typing.ClassVar) or _is_required(origin):
            hint = typing.get_args(hint)[0]
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        else:
            return hint


def _is_required(origin: Any) -> bool:
    names = ("Required", "NotRequired", "ReadOnly")
    return getattr(origin, "_name", None) in names


def shown(hint: Any) -> str:
    """An annotation in a message."""
    if hint is type(None):
        return "None"
    if inspect.isclass(hint) and typing.get_origin(hint) is None:
        return hint.__qualname__.rpartition("<locals>.")[2]
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(shown(one) for one in arguments)
    text = str(hint).replace("typing.", "").replace("collections.abc.", "")
    for one in arguments:
        if inspect.isclass(one) and typing.get_origin(one) is None:
            text = text.replace(f"{one.__module__}.{one.__qualname__}", shown(one))
    return text


def is_protocol(cls: type) -> bool:
    """Whether a class is a protocol, not merely derived from one."""
    return bool(getattr(cls, "_is_protocol", False)) and cls is not typing.Protocol


def members(protocol: type) -> dict[str, Any]:
    """What a protocol asks for: `{name: function, or None for a plain attribute}`."""
    found: dict[str, Any] = {}
    for base in reversed(protocol.__mro__):
        if not is_protocol(base):
            continue
        found.update(dict.fromkeys(inspect.get_annotations(base)))
        for name, value in base.__dict__.items():
            if name.startswith(("_abc_", "_is_", "__protocol", "__parameters", "__non_callable")):
                continue
            if name in _NO_MEMBERS or not (inspect.isroutine(value) or isinstance(value, property)):
                continue
            function = getattr(value, "__func__", value)  # static and class methods
            found[name] = None if isinstance(value, property) else function
    return found


def handle_fault(cls: type, methods: Mapping[str, object], protocol: type) -> str:
    """Why a handle of `cls` does not fit a protocol, or ""."""
    for name, wanted in members(protocol).items():
        if name not in methods:
            return f"{cls.__name__} has no public method {name!r}"
        fault = _signature_fault(name, wanted, inspect.getattr_static(cls, name))
        if fault:
            return fault
    return ""


def value_fault(value: object, protocol: type) -> str:
    """Why a value does not fit a protocol, or ""."""
    for name, wanted in members(protocol).items():
        if not hasattr(value, name):
            return f"it has no {name!r}"
        if wanted is not None and not callable(getattr(value, name)):
            return f"{name!r} is not callable"
        given = inspect.getattr_static(type(value), name, None)
        if wanted is not None and inspect.isfunction(given):
            fault = _signature_fault(name, wanted, given)
            if fault:
                return fault
    return ""


def _signature_fault(name: str, wanted: Any, given: Any) -> str:
    """Why the method `given` cannot be called as `wanted` may be, or ""."""
    given = getattr(given, "__func__", given)
    if not (inspect.isfunction(wanted) and inspect.isfunction(given)):
        return ""
    asked = list(inspect.signature(wanted).parameters.values())[1:]
    has = list(inspect.signature(given).parameters.values())[1:]
    fault = _parameters_fault(asked, has)
    if fault:
        return f"{name}() {fault}"
    return _types_fault(name, wanted, given, [one.name for one in asked])


_P = inspect.Parameter
_BY_POSITION = (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD)


def _parameters_fault(asked: list[_P], has: list[_P]) -> str:
    any_positional = any(one.kind is _P.VAR_POSITIONAL for one in has)
    any_keyword = any(one.kind is _P.VAR_KEYWORD for one in has)
    positional = [one for one in has if one.kind in _BY_POSITION]
    named = {one.name: one for one in has if one.kind in (_P.KEYWORD_ONLY, *_BY_POSITION)}
    used = set()
    for index, one in enumerate(asked):
        if one.kind in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD):
            continue
        if one.kind is _P.KEYWORD_ONLY:
            match = named.get(one.name)
            if match is None and not any_keyword:
                return f"takes no parameter {one.name!r}"
        else:
            match = positional[index] if index < len(positional) else None
            if match is None and not any_positional:
                return f"takes no parameter {one.name!r}"
            by_name = one.kind is _P.POSITIONAL_OR_KEYWORD and not one.name.startswith("__")
            if match is not None and by_name and match.name != one.name and not any_keyword:
                return f"calls its parameter {match.name!r}, not {one.name!r}"
        if match is not None:
            used.add(match.name)
            if one.default is not _P.empty and match.default is _P.empty:
                return f"requires {match.name!r}"
    for one in named.values():
        if one.name not in used and one.default is _P.empty:
            return f"requires {one.name!r}"
    return ""


def _types_fault(name: str, wanted: Any, given: Any, parameters: list[str]) -> str:
    """Compares plain classes only; whatever is more intricate is left to type checkers."""
    asked, has = evaluated(wanted), evaluated(given)
    if not _assignable(has.get("return", Any), asked.get("return", Any)):
        return f"{name}() returns {shown(has['return'])}, not {shown(asked['return'])}"
    for one in parameters:
        if not _assignable(asked.get(one, Any), has.get(one, Any)):
            return f"{name}() takes {shown(has[one])} as {one!r}, not {shown(asked[one])}"
    return ""


def _assignable(source: Any, target: Any) -> bool:
    source, target = plain(source), plain(target)
    if not (_is_plain_class(source) and _is_plain_class(target)):
        return True
    if target is object or (source, target) in ((int, float), (int, complex), (float, complex)):
        return True
    return issubclass(source, target)


def _is_plain_class(hint: Any) -> bool:
    if hint is Any or not inspect.isclass(hint):  # Any is a class from Python 3.11 on
        return False
    return typing.get_origin(hint) is None and not is_protocol(hint)
