"""The exceptions of lpml.

::

    Error
    ├── UsageError           a command or an argument is wrong; nothing was started
    ├── GraphError           the program is wrong; nothing was started
    ├── LaunchError          the machine refused what a run needs: a folder, a socket, memory
    ├── NodeError            a node failed and ended its run
    ├── NotFinite            a number of a network, a loss or an environment is not
    ├── ProgramStopped       the program is stopping; ends a wait so that its node can finish
    └── CallError            a call did not return a value
        ├── RemoteError      the method raised; also an instance of what it raised
        ├── NodeUnavailable  nothing answers at the address, or the node died with the call pending
        ├── CallTimeout      the deadline passed; also a TimeoutError
        ├── CallCancelled    the caller gave up
        └── ProtocolError    the peer sent bytes that are no message

A message says what was given, why it cannot be, and what to do, in at most five lines.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Sequence

_KEPT_ELSEWHERE = (types.MemberDescriptorType, types.GetSetDescriptorType)


class Error(Exception):
    """Base of every exception that lpml raises."""


class UsageError(Error):
    """A command line, a flag or a file name is wrong. Nothing was started."""


class GraphError(Error):
    """A program is wrong. Nothing was started.

    Args:
      faults: one message per fault; `check` reports all of them at once.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__(*faults)
        self.faults: tuple[str, ...] = faults

    def __str__(self) -> str:
        return "\n".join(self.faults)


class LaunchError(Error):
    """The machine refused something that a run needs. What had started was stopped."""


class NodeError(Error):
    """A node failed and its run ended.

    Args:
      node: the node's name, such as `worker/3`.
      reason: what happened, in one line.
      traceback: the node's own traceback, or "" where it left none (a signal).
      log: the path of the node's log file, or "".
    """

    def __init__(self, node: str, reason: str, traceback: str = "", log: str = "") -> None:
        super().__init__(node, reason, traceback, log)
        self.node = node
        self.reason = reason
        self.traceback = traceback
        self.log = log

    def __str__(self) -> str:
        lines = [self.traceback.rstrip()] if self.traceback else []
        lines.append(f"node {self.node} failed: {self.reason}")
        if self.log:
            lines.append(f"its log: {self.log}")
        return "\n".join(lines)


class NotFinite(Error, ArithmeticError):
    """A number is not finite; the message names whose it is: network, loss or environment."""


class ProgramStopped(Error):
    """The program is stopping. Leave `run()` soon; raising this out of `run()` is no failure."""


class CallError(Error):
    """A call did not return a value."""


class NodeUnavailable(CallError):
    """Nothing answers at the node's address, or the node died before it replied."""

    pending: bool = False
    """The node died while the call was under way: it may have been carried out or not."""
    deadline: float | None = None
    """Until when the call might have waited, if it was under way."""


class CallTimeout(CallError, TimeoutError):
    """The deadline of a call passed before its reply."""


class CallCancelled(CallError):
    """The caller cancelled the call."""


class ProtocolError(CallError):
    """The peer sent bytes that are no message of this protocol. Its connection was closed."""


class RemoteTraceback(Exception):
    """The text of a traceback from another node; the `__cause__` of a `RemoteError`."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}" if self.args else ""


class RemoteError(CallError):
    """A method of another node raised.

    What is raised at the caller is an instance of both `RemoteError` and the class of the
    original, so `except ValueError` catches a remote `ValueError`; attributes of the original
    are there too. `remote_error` makes them.
    """

    cause: BaseException
    """The original exception, or a `RuntimeError` with its text where it could not be sent."""
    message: str

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (remote_error, (self.cause, self.message, str(self.__cause__ or "")))


_dual_classes: dict[type[BaseException], type[RemoteError]] = {}


def _dual_class(original: type[BaseException]) -> type[RemoteError]:
    if original not in _dual_classes:
        _dual_classes[original] = _combine(original)
    return _dual_classes[original]


def _combine(original: type[BaseException]) -> type[RemoteError]:
    if issubclass(original, RemoteError):
        return original
    if not issubclass(original, Exception):
        return RemoteError
    try:
        return type("RemoteError", (RemoteError, original), {"__module__": __name__})
    except TypeError:  # a layout or a metaclass that does not combine
        return RemoteError


def remote_error(cause: BaseException, message: str, traceback: str) -> RemoteError:
    """The exception that a caller sees when a method of another node raised `cause`."""
    error = _blank(_dual_class(type(cause)), cause.args)
    _copy_state(cause, error)
    error.cause = cause
    error.message = message
    error.__cause__ = RemoteTraceback(traceback) if traceback else None
    return error


def _blank(cls: type[RemoteError], args: tuple[object, ...]) -> RemoteError:
    """An instance whose `__init__` was not called: only the original's own could be, with what?"""
    for make in (cls.__new__, Exception.__new__):  # the second for MemoryError
        with contextlib.suppress(TypeError):
            return make(cls, *args)
    return RemoteError.__new__(RemoteError)


def _copy_state(source: BaseException, target: BaseException) -> None:
    """Attributes of `source`, those too that builtin exceptions and slots keep elsewhere."""
    target.args = source.args
    target.__dict__.update(source.__dict__)
    for cls in type(source).__mro__:
        for name, kept in vars(cls).items():
            if isinstance(kept, _KEPT_ELSEWHERE) and not name.startswith("__"):
                with contextlib.suppress(AttributeError, TypeError):
                    setattr(target, name, getattr(source, name))


def closest(name: str, names: Sequence[str]) -> str:
    """`; did you mean 'sample'?` for the nearest of `names`, or what there is to choose from."""
    import difflib

    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is {', '.join(sorted(names))}" if names else ""
