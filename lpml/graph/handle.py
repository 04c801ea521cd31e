"""A promise of a service, typed as that service: what `add_node` returns and nodes are given.

In a running node the handle is a client with the same methods. Until then it has no behaviour: it
can be passed on, stored anywhere in an argument, and asked for a method to pass on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NoReturn, TypeGuard, final

from lpml.errors import GraphError, closest
from lpml.service import Interface, interface_of, service_class


@final
class Origin:
    """The node that a handle stands for. Its name is known once it was added to a program."""

    __slots__ = ("cls", "interface", "name", "program", "service")

    def __init__(self, service: Callable[..., object]) -> None:
        cls = service_class(service)
        self.interface: Interface = interface_of(service)
        if cls is None:
            raise GraphError(
                f"Node({self.interface.service}): cannot see what this function makes, so "
                "the methods of its node are not known; annotate what it returns with a class"
            )
        self.service = service
        self.cls: type = cls
        self.name: str | None = None
        self.program: object | None = None  # the Program, told apart by identity

    def __str__(self) -> str:
        return f"{self.name or 'a node not yet added'} ({self.interface.service})"


class NotAdded(GraphError):
    """A handle's node belongs to no program."""


@final
class Handle:
    """Stands for a service of another node. `isinstance(handle, Service)` holds.

    A public method of the service, `handle.method`, is a `HandleMethod`.
    """

    __slots__ = ("__weakref__", "_lpml_origin")

    def __init__(self, origin: Origin) -> None:
        self._lpml_origin = origin

    # A handle passes for its service, so that isinstance holds; it has no need of a setter.
    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._lpml_origin.cls

    def __getattr__(self, name: str) -> HandleMethod:
        origin = self._lpml_origin
        if name in origin.interface.methods:
            return HandleMethod(self, name)
        raise AttributeError(_no_method(origin, name))

    def __dir__(self) -> list[str]:
        return sorted(self._lpml_origin.interface.methods)

    def __repr__(self) -> str:
        return f"<handle of {self._lpml_origin}>"

    def __copy__(self) -> Handle:
        return self

    def __deepcopy__(self, memo: object) -> Handle:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise GraphError(
            f"{self!r} was pickled outside of a program: only lpml can send a handle; "
            "pass it as an argument of a Node"
        )


@final
class HandleMethod:
    """A method of a service of another node; a client's bound method once the program runs."""

    __slots__ = ("_lpml_handle", "_lpml_name")

    def __init__(self, handle: Handle, name: str) -> None:
        self._lpml_handle = handle
        self._lpml_name = name

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(method_function(self))
        first, *others = signature.parameters.values()
        del first  # self
        return signature.replace(parameters=others)

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise GraphError(
            f"{self._lpml_name}() of {origin_of(self)} was called while the program was being "
            "declared, where nothing runs yet; call it in a service, or through Run.client"
        )

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is HandleMethod
            and other._lpml_handle is self._lpml_handle
            and other._lpml_name == self._lpml_name
        )

    def __hash__(self) -> int:
        return hash((id(self._lpml_handle), self._lpml_name))

    def __repr__(self) -> str:
        return f"<method {self._lpml_name} of {origin_of(self)}>"

    def __reduce__(self) -> tuple[object, ...]:
        return getattr, (self._lpml_handle, self._lpml_name)


def is_handle(value: object) -> TypeGuard[Handle]:
    """Whether a value is a handle; `isinstance` would say that it is a service."""
    return type(value) is Handle


def origin_of(promise: Handle | HandleMethod) -> Origin:
    """The node that a handle, or a method of a handle, belongs to."""
    handle = promise._lpml_handle if type(promise) is HandleMethod else promise
    origin: Origin = object.__getattribute__(handle, "_lpml_origin")
    return origin


def method_function(method: HandleMethod) -> Callable[..., Any]:
    """The function, not bound, that a method of a handle stands for."""
    function: Callable[..., Any] = getattr(origin_of(method).cls, method._lpml_name)
    return function


def _no_method(origin: Origin, name: str) -> str:
    if hasattr(origin.cls, name):
        return (
            f"{name!r} of {origin} cannot be reached from another node: "
            "only public methods can; write one that returns it"
        )
    near = closest(name, list(origin.interface.methods))
    return f"{origin} has no method {name!r}{near}"
