"""What a service may declare about its methods, and the interface that follows from its class.

A service is a plain class; nothing here is needed to write one. Its public methods are its
interface. Calls to one node are served one at a time unless a method says otherwise.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, runtime_checkable

from lpml.trees import split_batch, stack_examples

P = ParamSpec("P")
R = TypeVar("R")
_MARK = "__lpml_method__"

Kind = Literal["serial", "concurrent", "batched"]


@dataclass(frozen=True)
class MethodSpec:
    """How one public method of a service is served."""

    kind: Kind = "serial"
    stream: bool = False
    """The method is a generator: its items are streamed."""
    idempotent: bool = False
    max_size: int = 1
    timeout: float = 0.0
    pad: bool = False


@dataclass(frozen=True)
class Interface:
    """The public methods of a service: all that a client needs to know of its class."""

    service: str
    """The name of the class, for messages."""
    methods: typing.Mapping[str, MethodSpec]
    has_run: bool = False

    @property
    def stateful(self) -> bool:
        """Whether it is `Checkpointable`: it has `save` and `restore`."""
        return "save" in self.methods and "restore" in self.methods

    @property
    def redoes(self) -> bool:
        """Whether it has what a journal needs: `save`, `restore` and `redo`."""
        return self.stateful and "redo" in self.methods


def _mark(method: Callable[P, R], **changes: Any) -> Callable[P, R]:
    spec = getattr(method, _MARK, MethodSpec())
    setattr(method, _MARK, MethodSpec(**{**spec.__dict__, **changes}))
    return method


def concurrent(method: Callable[P, R]) -> Callable[P, R]:
    """The method may run while others of the same service run. It does its own locking."""
    return _mark(method, kind="concurrent")


def idempotent(method: Callable[P, R]) -> Callable[P, R]:
    """Calling the method twice does no harm, so a call may be sent again after a restart."""
    return _mark(method, idempotent=True)


def batched(
    max_size: int, timeout: float = 0.005, pad: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Calls that wait at the same time are stacked and served by one call of the method.

    A caller passes one example, a pytree of arrays `[...]`; the method receives them stacked,
    `[B, ...]`, and returns a pytree of arrays `[B, ...]` of which each caller gets its own row.
    On a plain object, without a launcher, the method serves a batch of one: same shapes, same
    result.

    Args:
      max_size: the largest batch B.
      timeout: seconds that the first call of a batch waits for others.
      pad: repeat the last example up to `max_size`, so that B never varies and a jitted method
        compiles once.

    Raises:
      ValueError: `max_size` < 1 or `timeout` < 0.
    """
    if max_size < 1 or timeout < 0:
        raise ValueError(
            f"batched(max_size={max_size}, timeout={timeout}): "
            "give a size of at least 1 and seconds of at least 0"
        )

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def one(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            return call_batch(functools.partial(method, self), [(args, kwargs)], spec)[0]

        _mark(one, kind="batched", max_size=max_size, timeout=timeout, pad=pad)
        spec: MethodSpec = getattr(one, _MARK)
        return typing.cast(Callable[P, R], one)

    return decorate


def call_batch(
    method: Callable[..., Any],
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]],
    spec: MethodSpec,
) -> list[Any]:
    """One call of a batched method (undecorated, bound) for several callers' arguments."""
    count = len(calls)
    if spec.pad:
        calls = calls + [calls[-1]] * (spec.max_size - count)
    args, kwargs = stack_examples(calls)
    return split_batch(method(*args, **kwargs), len(calls))[:count]


@runtime_checkable
class Checkpointable(Protocol):
    """A service whose state can be saved and restored."""

    def save(self) -> Any:
        """The state as a pytree of arrays and scalars."""

    def restore(self, state: Any) -> None:
        """Puts back what `save` returned."""


_STREAMS = (Iterator, Iterable, AsyncIterator, typing.Generator)


def _spec(function: Callable[..., Any]) -> MethodSpec:
    spec: MethodSpec = getattr(function, _MARK, MethodSpec())
    if inspect.isgeneratorfunction(inspect.unwrap(function)):
        return MethodSpec(**{**spec.__dict__, "stream": True})
    return spec


def service_class(service: Callable[..., object]) -> type | None:
    """The class that `service` makes: itself, or what a factory's return annotation says.

    Looks through `Replay[int]`, `functools.partial` and classmethods that return `Self`.
    """
    if isinstance(service, functools.partial):
        return service_class(service.func)
    generic = typing.get_origin(service)
    if inspect.isclass(generic):
        return generic
    if inspect.isclass(service):
        return service
    try:
        hint = typing.get_type_hints(service).get("return")
    except Exception:  # an annotation that cannot be evaluated says nothing
        return None
    owner = getattr(service, "__self__", None)
    if getattr(hint, "__name__", "") == "Self" and inspect.isclass(owner):
        return owner
    origin = typing.get_origin(hint) or hint
    return origin if inspect.isclass(origin) else None


def _is_method(attribute: Any) -> bool:
    """Functions, and what stands for one in a class, such as a jitted function."""
    return inspect.isfunction(attribute) or (
        callable(attribute) and not inspect.isclass(attribute) and hasattr(attribute, "__get__")
    )


def interface_of(service: Callable[..., object]) -> Interface:
    """The interface of a service class, or of what a factory function is annotated to return.

    Public methods are what can be called in the class (functions, jitted ones too) and has a name
    that does not begin with `_`; `run` is the node's main loop and is never called from outside.
    """
    cls = service_class(service)
    name = getattr(service, "__name__", type(service).__name__)
    if cls is None:
        return Interface(name, {}, has_run=False)
    methods = {}
    for attribute in dir(cls):
        if attribute.startswith("_") or attribute == "run":
            continue
        function = inspect.getattr_static(cls, attribute)
        if isinstance(function, (staticmethod, classmethod)):
            function = function.__func__
        if callable(function) and not inspect.isclass(function):
            methods[attribute] = _spec(function)
    return Interface(cls.__name__, methods, has_run=callable(getattr(cls, "run", None)))
