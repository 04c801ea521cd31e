"""Whether arguments fit a service's signature and its annotations, as messages for people."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from lpml.errors import closest
from lpml.graph import structure
from lpml.graph.fits import Misfit, inner_handle_misfits, misfit
from lpml.graph.node import Node


def bound_arguments(
    service: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[str, str, Any]]:
    """`(path, parameter, value)` for each argument given.

    Raises:
      TypeError: they do not fit the signature.
    """
    signature = structure.signature_of(service)
    if signature is None:
        positional = [(f"argument {i}", "", value) for i, value in enumerate(args)]
        return positional + [(name, "", value) for name, value in kwargs.items()]
    found: list[tuple[str, str, Any]] = []
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            found += [(f"{name}[{i}]", name, item) for i, item in enumerate(value)]
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found += [(key, name, item) for key, item in value.items()]
        else:
            found.append((name, name, value))
    return found


def argument_faults(
    node: str, service: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, ...]:
    """Every fault of the arguments, as messages that name node, parameter, expected and given."""
    inner = structure.unwrapped(service)
    name = getattr(inner, "__name__", type(inner).__name__)
    try:
        arguments = bound_arguments(service, args, kwargs)
    except TypeError as error:
        return (f"{node}: {_signature_fault(name, service, kwargs, str(error))}",)
    hints = structure.hints_of(service)
    faults = []
    for path, parameter, value in arguments:
        if parameter not in hints:
            found = next(inner_handle_misfits(path, value), None)
        else:
            found = misfit(value, hints[parameter], path)
            found = found or next(inner_handle_misfits(path, value), None)
        if found is not None:
            faults.append(_message(node, name, found, value))
    return tuple(faults)


def _signature_fault(
    name: str, service: Callable[..., object], kwargs: Mapping[str, Any], error: str
) -> str:
    signature = structure.signature_of(service)
    assert signature is not None  # it refused the arguments
    parameters = signature.parameters.values()
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in parameters]
    shown = f"the signature is {name}{inspect.Signature(bare)}"
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    unknown = [key for key in kwargs if key not in signature.parameters and not takes_any]
    if unknown:
        near = closest(unknown[0], [one.name for one in parameters])
        return f"{name} has no parameter {unknown[0]!r}{near}; {shown}"
    return f"{error}; {shown}"


def _message(node: str, service: str, found: Misfit, value: object) -> str:
    why = f": {found.why}" if found.why else ""
    remedy = "pass what fits, or correct the annotation"
    if isinstance(value, Node):
        remedy = "pass what add_node returned, or node.handle(), not the Node"
    return (
        f"{node}: parameter {found.path!r} of {service} expects {found.expected}, "
        f"but was given {found.given}{why}; {remedy}"
    )
