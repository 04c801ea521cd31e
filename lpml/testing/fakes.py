"""Stand-ins for collaborators: fakes, and real ones that fail or are slow on purpose."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast, final

from lpml.clock import current_clock
from lpml.errors import closest
from lpml.service import Interface, interface_of, service_class

S = TypeVar("S")


@dataclass(frozen=True)
class Made:
    """One call that a fake received."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def fake(service: Callable[..., S], /, **methods: Callable[..., Any]) -> S:
    """An object that passes for a `service` and answers with the given functions.

    The functions take the arguments of the method, without `self`. Arguments are checked against
    the real method's signature, so that a fake cannot drift from what it stands for. What was
    called is in `calls(fake)`. A method that was given no function raises when it is called.

    Args:
      service: the class to stand in for; it is not constructed.
      methods: a function for each method that will be called.

    Raises:
      TypeError: the service has no such method, or what was given cannot be called.

    Example:
      >>> class Replay:
      ...     def sample(self, count: int) -> list[int]: ...
      >>> replay = fake(Replay, sample=lambda count: [0] * count)
      >>> replay.sample(3)
      [0, 0, 0]
      >>> [made.args for made in calls(replay)]
      [(3,)]
    """
    cls = service_class(service)
    if cls is None:
        raise TypeError(f"fake({service!r}): give a class, or a function annotated to return one")
    interface = interface_of(service)
    for name, function in methods.items():
        if name not in interface.methods:
            near = closest(name, tuple(interface.methods))
            raise TypeError(f"fake: {interface.service} has no public method {name!r}{near}")
        if not callable(function):
            raise TypeError(
                f"fake({interface.service}, {name}={function!r}): give a function, "
                f"such as {name}=lambda *args: {function!r}"
            )
    return cast(S, _Fake(cls, interface, methods))


def calls(fake: object, method: str | None = None) -> list[Made]:
    """What a fake was asked, in order; only the calls of `method` where one is named.

    Raises:
      TypeError: `fake` was not made by `lpml.testing.fake`.
    """
    if type(fake) is not _Fake:
        raise TypeError(f"calls({fake!r}): give what lpml.testing.fake returned")
    made: list[Made] = object.__getattribute__(fake, "_made")
    return [call for call in list(made) if method is None or call.method == method]


def failing(target: S, method: str, error: BaseException, *, times: int = 1, after: int = 0) -> S:
    """`target` with one method that raises.

    Works on plain objects, fakes, clients, and on handles before a program starts: pass
    `failing(replay, "sample", ...)` to a `Node` and the node meets the fault.

    Args:
      target: the collaborator.
      method: the name of the method.
      error: what the calls raise; each raises this same exception.
      times: how many calls raise.
      after: how many calls go through before.

    Raises:
      AttributeError: the target has no such method.
    """
    return cast(S, _Faulty(target, method, _Fail(error, times, after)))


def slow(target: S, method: str, seconds: float) -> S:
    """`target` with one method that first waits, on the clock of the node that calls it.

    Under a `VirtualClock` the wait takes no real time. It ends early, as any wait does, when the
    program stops or the deadline of the caller passes.

    Raises:
      AttributeError: the target has no such method.
    """
    return cast(S, _Faulty(target, method, _Delay(seconds)))


@final
class _Fake:
    """Answers for a service. `isinstance(fake, Service)` holds."""

    def __init__(
        self, cls: type, interface: Interface, methods: dict[str, Callable[..., Any]]
    ) -> None:
        self._cls = cls
        self._interface = interface
        self._methods = methods
        self._made: list[Made] = []

    @property  # type: ignore[misc]  # only read, by isinstance
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._cls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        interface = self._interface
        if name not in interface.methods:
            near = closest(name, tuple(interface.methods))
            raise AttributeError(f"a fake {interface.service} has no method {name!r}{near}")
        return _named(name, functools.partial(self._answer, name))

    def _answer(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        if name not in self._methods:
            service = self._interface.service
            raise NotImplementedError(
                f"{service}.{name} was called and is not faked: "
                f"give fake({service}, {name}=lambda ...: ...)"
            )
        _check_arguments(self._cls, name, args, kwargs)
        self._made.append(Made(name, args, kwargs))
        return self._methods[name](*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Fake, (self._cls, self._interface, self._methods))

    def __repr__(self) -> str:
        return f"<fake {self._interface.service}>"


def _check_arguments(cls: type, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    static = inspect.getattr_static(cls, name)
    bare = isinstance(static, staticmethod)
    function = static.__func__ if isinstance(static, (staticmethod, classmethod)) else static
    try:
        inspect.signature(function).bind(*(() if bare else (None,)), *args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{cls.__name__}.{name}: {error}") from None


@final
class _Fail:
    """Decides which calls raise."""

    def __init__(self, error: BaseException, times: int, after: int) -> None:
        if times < 0 or after < 0:
            raise ValueError(f"failing(times={times}, after={after}): give numbers of at least 0")
        self._error = error
        self._times = times
        self._after = after
        self._seen = 0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._seen += 1
            faulty = self._after < self._seen <= self._after + self._times
        if faulty:
            raise self._error

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Fail, (self._error, self._times, self._after))


@final
class _Delay:
    """Waits before each call."""

    def __init__(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"slow(seconds={seconds!r}): give a number of at least 0")
        self._seconds = seconds

    def __call__(self) -> None:
        clock = current_clock()
        if clock.wait(self._seconds):
            clock.check()


@final
class _Faulty:
    """A collaborator whose one method meets a fault first; the rest is the collaborator's."""

    def __init__(self, target: Any, method: str, fault: Callable[[], None]) -> None:
        getattr(target, method)  # raises AttributeError where there is none
        self._target = target
        self._method = method
        self._fault = fault

    @property  # type: ignore[misc]  # only read, by isinstance
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._target.__class__

    def __getattr__(self, name: str) -> Any:
        if name in ("_target", "_method", "_fault"):  # not there yet while unpickling
            raise AttributeError(name)
        value = getattr(self._target, name)
        return self._call_after_fault(value) if name == self._method else value

    def _call_after_fault(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._fault()
            return method(*args, **kwargs)

        return _named(self._method, call)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Faulty, (self._target, self._method, self._fault))

    def __repr__(self) -> str:
        return f"<{self._target!r} with a faulty {self._method}>"


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Under the name of the method, which messages show."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    return call
