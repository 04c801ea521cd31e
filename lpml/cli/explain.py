"""What an error of lpml looks like to the user of a command line."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from lpml.cli.arguments import FactoryError, FlagError
from lpml.cli.factories import ProgramFileError
from lpml.errors import Error, GraphError, NodeError

_PACKAGE = Path(__file__).resolve().parents[1]


def explain(error: Error) -> str:
    """The error for people: a traceback only where the fault is in the user's own code."""
    if isinstance(error, FlagError):
        return error.shown.rstrip()
    if isinstance(error, (ProgramFileError, FactoryError)):
        return f"{_users_traceback(error)}\nlpml: {error}"
    if isinstance(error, GraphError):
        faults = "\n".join(f"lpml: {fault}" for fault in error.faults)
        return faults + _place(error.__traceback__)
    if isinstance(error, NodeError):
        return str(error)
    return f"lpml: {error}"


def as_dict(error: Error) -> dict[str, Any]:
    """The error for programs."""
    found: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, GraphError):
        found["faults"] = list(error.faults)
    if isinstance(error, (ProgramFileError, FactoryError)):
        found["traceback"] = _users_traceback(error)
    return found


def _users_traceback(error: Error) -> str:
    """The traceback of the cause, from the user's first frame on."""
    cause = error.__cause__
    if cause is None:
        return ""
    trace = cause.__traceback__
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(cause), cause, trace)).rstrip()


def _is_ours(trace: TracebackType) -> bool:
    name = trace.tb_frame.f_code.co_filename
    return name.startswith("<frozen importlib") or Path(name).resolve().is_relative_to(
        _PACKAGE / "cli"
    )


def _place(trace: TracebackType | None) -> str:
    """Where in the user's file it was raised: the last frame that is not of the core."""
    found = ""
    for frame in traceback.extract_tb(trace):
        if not Path(frame.filename).resolve().is_relative_to(_PACKAGE) and frame.line:
            found = f"\n  at {frame.filename}:{frame.lineno}: {frame.line}"
    return found
