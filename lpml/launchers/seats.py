"""A process that somebody else started takes its seat in a program, at a socket (`seating`)."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import final

from lpml.launchers import pipes


def occupy(path: str, key: str, attempt: int) -> int:
    """Makes this process the process `key` of a program; returns its exit code.

    Args:
      path: the socket to come to.
      key: of the process.
      attempt: which of its attempts.

    Raises:
      OSError: nobody is there who wants it.
    """
    from lpml.launchers import worker

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    with contextlib.suppress(OSError):  # so that what it starts ends with it
        os.setpgid(0, 0)
    here = {"what": "here", "key": key, "attempt": attempt, "pid": os.getpid()}
    pipes.send(connection, here)
    received = pipes.receive(connection)
    if received is None:
        raise ConnectionResetError(f"{key} is not wanted any more")
    control, spec, *listeners = received[1]
    code = worker.run(control, spec, listeners)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    with contextlib.suppress(OSError):
        pipes.send(connection, {"what": "leaving", "code": code})
    connection.detach()  # it is closed with the process
    return code


@final
class Seat:
    """An actor that becomes a process of a program."""

    def occupy(self, path: str, key: str, attempt: int) -> int:
        """As the function `occupy`."""
        return occupy(path, key, attempt)
