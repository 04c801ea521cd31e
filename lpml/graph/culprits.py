"""Where in a value the thing is that cannot be pickled, as an attribute path."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

from lpml.graph.handle import NotAdded

_MAX_DEPTH = 60
_ATOMS = (type(None), bool, int, float, complex, str, bytes, bytearray)


def find_culprit(
    path: str, value: object, error: BaseException, scan: Callable[[object], object]
) -> str:
    """The message for a value that could not be pickled, with the path to the part at fault.

    Args:
      path: what to call the value itself.
      value: what pickling raised `error` for.
      error: what was raised.
      scan: pickles a part, or raises what stands in the way.
    """
    if _is_too_deep(error):
        return f"{path} is nested too deeply to be sent to a node, or without end; make it flatter"
    seen: set[int] = set()
    while len(seen) < _MAX_DEPTH:
        seen.add(id(value))
        for step, child in _parts(value):
            failure = None if id(child) in seen else _failure(child, scan)
            if failure is not None:
                path, value, error = path + step, child, failure
                break
        else:
            break
    if isinstance(error, NotAdded):
        return f"{path}: {error}; add it to the program with add_node"
    return (
        f"{path} cannot be sent to a node: {_what(value)} ({_reason(error)}); "
        "make it in the service's constructor, or leave it out of the object's __getstate__"
    )


def _failure(value: object, scan: Callable[[object], object]) -> Exception | None:
    if type(value) in _ATOMS:
        return None
    try:
        scan(value)
    except Exception as error:
        return error
    return None


def _what(value: object) -> str:
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"it is a {module}{kind.__qualname__}"


def _is_too_deep(error: BaseException) -> bool:
    return isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError)


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What pickling a value pickles in turn, with the step of the path that leads there."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
        yield from ((f"'s key {key!r}", key) for key in value)
    if isinstance(value, (list, tuple, set, frozenset)):
        names = getattr(value, "_fields", None)  # of a named tuple
        for index, item in enumerate(value):
            yield (f".{names[index]}" if names else f"[{index}]"), item
    if isinstance(value, functools.partial):
        yield ".func", value.func
        yield from ((f".args[{i}]", item) for i, item in enumerate(value.args))
        yield from ((f".keywords[{key!r}]", item) for key, item in value.keywords.items())
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, type):
        yield from ((f".{name}", item) for name, item in vars(value).items())
        yield from ((f".{base.__name__}", base) for base in value.__bases__)
    else:
        yield from _state_parts(value)


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f" (variable {name!r} of the function around it)", cell.cell_contents
        except ValueError:  # an empty cell
            continue
    for name, default in _defaults(function):
        yield f" (default of {name!r})", default
    for name in _global_names(code):
        if name in function.__globals__:
            yield f" (global variable {name!r})", function.__globals__[name]
    yield from ((f".{name}", item) for name, item in vars(function).items())


def _defaults(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    for name, parameter in inspect.signature(function, follow_wrapped=False).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            yield name, parameter.default


def _global_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:  # functions and comprehensions inside
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _state_parts(value: object) -> Iterator[tuple[str, object]]:
    reduced: Any
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # the object itself refuses; its parts may say why
        reduced = (None, (), getattr(value, "__dict__", None))
    if not isinstance(reduced, tuple):
        return
    _, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    states = state if isinstance(state, tuple) else (state,)
    for one in states:
        if isinstance(one, dict):
            yield from ((f".{name}", item) for name, item in one.items())
        elif one is not None:
            yield ".__getstate__()", one
    for index, item in enumerate(arguments or ()):
        yield f".__reduce__()[1][{index}]", item
    if not isinstance(value, (list, dict)):
        yield from ((f"[{i}]", item) for i, item in enumerate(items or ()))
        yield from ((f"[{key!r}]", item) for key, item in pairs or ())
