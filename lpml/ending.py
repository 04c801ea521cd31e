"""How a process ends while threads of it are in foreign code, which nobody can interrupt.

Before Python 3.14 such a thread ends the process by SIGABRT if it asks for the interpreter while
that is torn down, as XLA does every few milliseconds while it compiles. So the interpreter waits
for what is known to last, or the process ends without the interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

F = TypeVar("F", bound=Callable[[], object])

PATIENCE = 60.0  # seconds that the end of an interpreter may be put off
_SILENCE = 1.0  # seconds of them that nothing is said

_first: list[Callable[[], object]] = []  # what is done before anything is waited for
_at_work: dict[threading.Event, str] = {}  # {set when it is done: what it is}
_code: int | None = None  # of the command that this process is
os.register_at_fork(after_in_child=_at_work.clear)  # no other thread is there


def leave(code: int) -> NoReturn:
    """Ends the process as an interpreter does, without waiting for anybody's threads."""
    atexit.unregister(_end)
    with contextlib.suppress(BaseException):
        _begin_end()
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(code)


def at_exit(function: F) -> F:
    """Calls the function at the interpreter's end, before anything is waited for."""
    _first.append(function)
    _enter()
    return function


def begin_work(what: str) -> Callable[[], None]:
    """Something begins in a daemon thread that nobody can interrupt: the interpreter waits for it.

    Args:
      what: begins, for the message.

    Returns:
      What is to be called when it is done.
    """
    done = threading.Event()
    _at_work[done] = what
    _enter()

    def end() -> None:
        done.set()
        _at_work.pop(done, None)

    return end


def end_with(code: int) -> None:
    """The process is a command with this exit code, which waits for no thread when it ends."""
    global _code
    _code = code
    _enter()


def _enter() -> None:
    """What was registered last is called first: before jax lets go of its devices."""
    atexit.unregister(_end)
    atexit.register(_end)


def _end() -> None:
    try:
        _begin_end()
        if _code is not None and threading.active_count() > 1:
            leave(_code)
        _wait()
    except KeyboardInterrupt:
        leave(130)


def _begin_end() -> None:
    while _first:
        _first.pop()()


def _wait() -> None:
    for done, what in list(_at_work.items()):
        if done.wait(_SILENCE):
            continue
        _say(f"waits for {what}, which nothing can interrupt but the end of the process (Ctrl-C)")
        if not done.wait(PATIENCE):
            _say(f"{what} has not ended in {PATIENCE:.0f} s; ends the process")
            leave(1)


def _say(text: str) -> None:
    with contextlib.suppress(Exception):
        print(f"lpml: {text}", file=sys.stderr, flush=True)
