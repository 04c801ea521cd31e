"""What only the operating system can do: die with the parent, adopt orphans, find leftovers.

Linux does all of it. Elsewhere each function does what it can and says so by its result.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)


def die_with_parent() -> bool:
    """The kernel kills this process when the thread that forked it ends."""
    return _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> bool:
    """Orphaned descendants become children of this process."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Shows `name` in process listings, as far as its first 15 characters."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def children() -> list[int]:
    """The processes whose parent is this one."""
    me = os.getpid()
    with contextlib.suppress(OSError):
        found = []
        for task in os.listdir(f"/proc/{me}/task"):
            found += Path(f"/proc/{me}/task/{task}/children").read_text().split()
        return [int(pid) for pid in found]
    return [pid for pid in _processes() if _parent(pid) == me]


def _processes() -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, or [] when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def process_state(pid: int) -> str:
    """One letter as in ps: R, S, D, T, Z; "" when it is gone or unknown."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def start_time(pid: int) -> int:
    """When a process started, in ticks; with its pid that names it for ever. 0 = unknown."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def is_alive(pid: int, started: int = 0) -> bool:
    """Whether this process still runs (and is the one that started then)."""
    if started:
        return start_time(pid) == started and process_state(pid) not in ("", "Z")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def processes_of_run(mark: str) -> list[int]:
    """Processes of this user whose environment carries `mark`, such as `LPML_RUN=...`."""
    wanted = mark.encode()
    found = []
    for pid in _processes():
        try:
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


def end_leftovers(mark: str, dying: Iterable[int], timeout: float = 5.0) -> None:
    """Kills every process of this user that carries `mark`, and waits for the end of all.

    Args:
      dying: processes that were killed already. The kernel takes a process's environment before
        its files, so that these carry no mark any more and still hold sockets and memory.
      timeout: how long to wait for those that nothing but the kernel can end, in seconds.
    """
    ends = set(dying)
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        left = processes_of_run(mark)
        for pid in left:
            kill(pid, signal.SIGKILL)
        ends.update(left)
        late = time.monotonic() > deadline
        if not left and (late or all(process_state(pid) in ("", "Z") for pid in ends)):
            return
        pause.wait(0.001)


def peak_memory(pid: int) -> int:
    """The most main memory that a process has used, in bytes; 0 when it is gone or unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def kill(pid: int, number: int) -> None:
    """Sends a signal; a process that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def allow_descriptors(wanted: int) -> None:
    """Lets this process open so many files and sockets, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def memory_file(name: str, data: bytes) -> int:
    """A descriptor of an anonymous file that holds `data`, at its start."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name)
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def stack_signal() -> int:
    """The signal that makes a node write its stacks even when its interpreter is stuck."""
    rt_max = getattr(signal, "SIGRTMAX", None)
    return signal.SIGUSR2 if rt_max is None else int(rt_max) - 3


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since the machine started."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
