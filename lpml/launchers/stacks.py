"""The Python stacks of this process, and a way to interrupt a thread of it."""

from __future__ import annotations

import ctypes
import sys
import threading
import traceback

from lpml.errors import ProgramStopped


def every_thread() -> str:
    """The stack of each thread but the one that asks, the innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            parts.append(f"thread {names.get(ident, ident)}:\n{stack_text(frame)}")
    return "\n".join(parts)


def one_thread(ident: int | None) -> str:
    """The stack of one thread, or "" if it has ended."""
    frame = sys._current_frames().get(ident) if ident is not None else None
    return "" if frame is None else stack_text(frame)


def stack_text(frame: object) -> str:
    """A frame and those that called it."""
    return "".join(traceback.format_stack(frame))  # type: ignore[arg-type]


def interrupt(ident: int | None) -> bool:
    """Raises ProgramStopped in a thread at its next bytecode; foreign code is not interrupted."""
    if ident is None:
        return False
    set_error = ctypes.pythonapi.PyThreadState_SetAsyncExc
    return bool(set_error(ctypes.c_ulong(ident), ctypes.py_object(ProgramStopped)))
