"""Whether a value fits an annotation; says where not.

Doubt counts as fit: an annotation that cannot be evaluated, or of a kind not known here, finds no
fault. Handles are judged as the service they stand for.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from lpml.graph import structure
from lpml.graph.handle import HandleMethod, is_handle, origin_of
from lpml.graph.node import Node

_MAX_ITEMS = 1000  # of a long list only so many are looked at: they rarely differ in type
# What kinds of arrays without axes pass for numbers, as they do in arithmetic (V = bfloat16).
_NUMBERS: dict[type, str] = {bool: "b", int: "iub", float: "iubfV", complex: "iubfVc"}


@dataclasses.dataclass(frozen=True)
class Misfit:
    """A value, somewhere inside an argument, that does not fit what is expected there."""

    path: str
    expected: str
    given: str
    why: str = ""


def misfit(value: object, hint: Any, path: str) -> Misfit | None:
    """Where `value` does not fit `hint`, or `None`."""
    hint = structure.plain(hint)
    origin = typing.get_origin(hint)
    if hint is Any or hint is object or isinstance(hint, (str, typing.ForwardRef)):
        return None
    if hint is None or hint is type(None):
        return None if value is None else Misfit(path, "None", described(value))
    if isinstance(hint, typing.TypeVar):
        return _variable(value, hint, path)
    if origin is typing.Union or origin is types.UnionType:
        return _union(value, hint, path)
    if origin is typing.Literal:
        fits = any(type(value) is type(one) and value == one for one in typing.get_args(hint))
        return None if fits else Misfit(path, structure.shown(hint), described(value))
    if origin is type or hint is type:
        return _class(value, hint, path)
    if origin is collections.abc.Callable or hint is Callable:
        return _callable(value, hint, path)
    if typing.is_typeddict(hint):
        return _typed_dict(value, hint, path)
    cls = origin or hint
    if not inspect.isclass(cls):
        return None
    if structure.is_protocol(cls):
        return _protocol(value, cls, hint, path)
    if not _is_instance(value, cls):
        return Misfit(path, structure.shown(hint), described(value))
    if origin is tuple and isinstance(value, tuple):
        return _tuple(value, hint, path)
    return None if is_handle(value) else _items(value, cls, typing.get_args(hint), path)


def _is_instance(value: object, cls: type) -> bool:
    if is_handle(value):
        return _is_subclass(origin_of(value).cls, cls)
    if cls in _NUMBERS and getattr(value, "shape", None) == ():
        return getattr(getattr(value, "dtype", None), "kind", "") in _NUMBERS[cls]
    if cls is float or cls is complex:
        return isinstance(value, numbers.Complex if cls is complex else numbers.Real)
    try:
        return isinstance(value, cls)
    except Exception:  # a metaclass that does not answer
        return True


def _is_subclass(cls: type, of: type) -> bool:
    try:
        return issubclass(cls, of)
    except Exception:
        return True


def _variable(value: object, hint: typing.TypeVar, path: str) -> Misfit | None:
    if hint.__bound__ is not None:
        return misfit(value, hint.__bound__, path)
    if hint.__constraints__:
        return _union(value, typing.Union[hint.__constraints__], path)  # noqa: UP007
    return None


def _union(value: object, hint: Any, path: str) -> Misfit | None:
    found = [misfit(value, branch, path) for branch in typing.get_args(hint)]
    if None in found:
        return None
    inner = [one for one in found if one is not None and (one.path != path or one.why)]
    if len(inner) == 1:  # one branch almost fits: its detail is the useful one
        return inner[0]
    return Misfit(path, structure.shown(hint), described(value))


def _class(value: object, hint: Any, path: str) -> Misfit | None:
    wanted = [structure.plain(one) for one in typing.get_args(hint)]
    fits = isinstance(value, type) and not is_handle(value)
    if fits and wanted and inspect.isclass(wanted[0]) and not structure.is_protocol(wanted[0]):
        fits = _is_subclass(typing.cast(type, value), wanted[0])
    return None if fits else Misfit(path, structure.shown(hint), described(value))


def _callable(value: object, hint: Any, path: str) -> Misfit | None:
    expected, given = structure.shown(hint), described(value)
    if is_handle(value):
        return Misfit(path, expected, given, "only its public methods can be called; pass one")
    if not callable(value):
        return Misfit(path, expected, given)
    parameters, *_ = typing.get_args(hint) or ((),)
    signature = structure.signature_of(value)
    if not typing.get_args(hint) or not isinstance(parameters, list) or signature is None:
        return None
    try:
        signature.bind(*parameters)
    except TypeError as error:
        return Misfit(path, expected, given, f"called so, {error}")
    return None


def _typed_dict(value: object, hint: Any, path: str) -> Misfit | None:
    if not isinstance(value, dict):
        return Misfit(path, structure.shown(hint), described(value))
    for key, inner in structure.evaluated(hint).items():
        if key in value:
            found = misfit(value[key], inner, f"{path}[{key!r}]")
            if found is not None:
                return found
        elif key in hint.__required_keys__:
            return Misfit(path, structure.shown(hint), described(value), f"key {key!r} is missing")
    return None


def _protocol(value: object, protocol: type, hint: Any, path: str) -> Misfit | None:
    if is_handle(value):
        origin = origin_of(value)
        why = structure.handle_fault(origin.cls, origin.interface.methods, protocol)
    else:
        why = structure.value_fault(value, protocol)
    return Misfit(path, structure.shown(hint), described(value), why) if why else None


# --- what containers hold ------------------------------------------------------------------------


def _items(value: Any, cls: type, arguments: tuple[Any, ...], path: str) -> Misfit | None:
    if not arguments:
        return None
    inner: Iterator[tuple[Any, Any, str]] = iter(())
    if isinstance(value, dict) and issubclass(cls, collections.abc.Mapping):
        key_hint, item_hint = (*arguments, Any)[:2]
        keys = ((key, key_hint, f"{path}'s key {key!r}") for key in value)
        items = ((item, item_hint, f"{path}[{key!r}]") for key, item in value.items())
        inner = (one for pair in zip(keys, items, strict=True) for one in pair)
    elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        if cls.__module__ in ("builtins", "collections", "collections.abc"):
            inner = ((item, arguments[0], f"{path}[{i}]") for i, item in enumerate(value))
    elif isinstance(value, dict) and cls.__module__ == "collections.abc":
        inner = ((key, arguments[0], f"{path}'s key {key!r}") for key in value)
    for count, (item, hint, where) in enumerate(inner):
        if count == _MAX_ITEMS:
            break
        found = misfit(item, hint, where)
        if found is not None:
            return found
    return None


def _tuple(value: tuple[Any, ...], hint: Any, path: str) -> Misfit | None:
    arguments = typing.get_args(hint)
    unpack = getattr(typing, "Unpack", ...)
    if hint is typing.Tuple or any(typing.get_origin(one) is unpack for one in arguments):  # noqa: UP006
        return None
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if arguments == ((),):  # how Python 3.10 writes tuple[()]
        arguments = ()
    if len(arguments) != len(value):
        expected = f"a tuple of {len(arguments)}"
        return Misfit(path, expected, described(value), f"it has {len(value)}")
    pairs = zip(value, arguments, strict=True)
    found = (misfit(item, hint, f"{path}[{i}]") for i, (item, hint) in enumerate(pairs))
    return next((one for one in found if one is not None), None)


def inner_handle_misfits(path: str, value: object, depth: int = 0) -> Iterator[Misfit]:
    """Handles in the fields of dataclasses, against the fields' annotations."""
    if depth > 8:
        return
    if isinstance(value, (list, tuple)) and not is_handle(value):
        for i, item in enumerate(value[:_MAX_ITEMS]):
            if dataclasses.is_dataclass(item):
                yield from inner_handle_misfits(f"{path}[{i}]", item, depth + 1)
    if is_handle(value) or isinstance(value, type) or not dataclasses.is_dataclass(value):
        return
    hints = structure.hints_of(type(value))
    for field in dataclasses.fields(value):
        item = getattr(value, field.name, None)
        where = f"{path}.{field.name}"
        if field.name in hints and _holds_handle(item):
            found = misfit(item, hints[field.name], where)
            if found is not None:
                yield found
        yield from inner_handle_misfits(where, item, depth + 1)


def _holds_handle(value: object) -> bool:
    if is_handle(value) or isinstance(value, HandleMethod):
        return True
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, (list, tuple)) and any(
        is_handle(item) or isinstance(item, HandleMethod) for item in value[:_MAX_ITEMS]
    )


def described(value: object) -> str:
    """A value in a message."""
    if is_handle(value):
        return f"a handle of {origin_of(value)}"
    if isinstance(value, (HandleMethod, Node)):
        return repr(value)
    if value is None:
        return "None"
    if isinstance(value, type) or inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    shown = _short_repr(value)
    return f"{shown} ({structure.shown(type(value))})"


@functools.cache
def _reprs() -> Any:
    import reprlib

    short = reprlib.Repr()
    short.maxother = short.maxstring = short.maxlong = 40
    return short


def _short_repr(value: object) -> str:
    if getattr(value, "shape", ()) != ():
        return f"an array of shape {getattr(value, 'shape', ())}"
    return str(_reprs().repr(value))
