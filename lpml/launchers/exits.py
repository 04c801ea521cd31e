"""How a process ended, in words; and how an exception that left a node is judged."""

from __future__ import annotations

import signal
import traceback

from lpml.errors import (
    CallCancelled,
    CallTimeout,
    Error,
    NodeUnavailable,
    NotFinite,
    ProgramStopped,
    RemoteError,
)

_CRASHES = {
    signal.SIGSEGV: "a crash in foreign code",
    signal.SIGBUS: "a crash in foreign code, or a full /dev/shm",
    signal.SIGILL: "an instruction that this processor does not have",
    signal.SIGFPE: "an arithmetic fault in foreign code",
    signal.SIGABRT: "foreign code gave up",
}


def decode(code: int | None, *, peak: int = 0, machine: int = 0, oom: bool = False) -> str:
    """One line for an exit.

    Args:
      code: exit code, or minus the signal's number (`os.waitstatus_to_exitcode`); `None` = nobody
        knows, since it was not our child.
      peak: bytes of main memory that the process used at most.
      machine: bytes of main memory of the machine, to judge the peak by.
      oom: whether the kernel has killed something for want of memory since the run began.
    """
    if code is None:
        return "was killed or crashed; the log may say where"
    if code >= 0:
        return f"exited with status {code}" + ("" if code else " before it was asked to")
    try:
        number = signal.Signals(-code)
        words = f"killed by {number.name}"
    except ValueError:
        return f"killed by signal {-code}"
    used = f", peak {peak / 2**30:.1f} GiB" if peak >= 2**29 else f", peak {peak / 2**20:.0f} MiB"
    if number == signal.SIGKILL:
        if oom:
            words += ", out of memory"
        elif machine and peak > machine // 2:
            words += ", likely out of memory"
        else:
            words += ", by the system (out of memory?) or by somebody"
    elif number in _CRASHES:
        words += f", {_CRASHES[number]}; the log may say where"
    return words + (used if peak else "")


def is_clean_in_a_stop(error: BaseException) -> bool:
    """Whether an exception out of a node only says that the program is stopping around it."""
    if isinstance(error, RemoteError):
        return is_clean_in_a_stop(error.cause)
    return isinstance(error, (ProgramStopped, NodeUnavailable, CallCancelled, CallTimeout))


def is_program_stopped(error: BaseException) -> bool:
    """Whether it says that a node, this or another, was told to stop."""
    if isinstance(error, RemoteError):
        return is_program_stopped(error.cause)
    return isinstance(error, ProgramStopped)


def is_consequence(error: BaseException) -> bool:
    """Whether it, or what it was raised from, says that another node was gone."""
    seen: BaseException | None = error
    for _ in range(20):
        if seen is None:
            return False
        if isinstance(seen, RemoteError) and is_consequence(seen.cause):
            return True
        if isinstance(seen, NodeUnavailable):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def is_hopeless(error: BaseException) -> bool:
    """Whether another attempt would end in the same way: numbers that are not finite stay so."""
    return isinstance(error, NotFinite)


def in_one_line(error: BaseException) -> str:
    """`ValueError: what it says`, cut where it is long."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be had)"
    lines = text.strip().splitlines() or [""]
    first = " ".join(lines) if isinstance(error, Error) else lines[0]
    name = type(error).__name__
    line = f"{name}: {first}" if first else name
    return line if len(line) <= 300 else line[:297] + "..."


def format_traceback(error: BaseException, hidden: tuple[str, ...]) -> str:
    """The traceback as text, without the leading frames of the files `hidden`."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in hidden:
        frames = frames.tb_next
    try:
        return "".join(
            traceback.format_exception(type(error), error, frames or error.__traceback__)
        )
    except Exception:  # an exception whose text raises
        return "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__ + "\n"
