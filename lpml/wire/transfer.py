"""Bytes and file descriptors over a Unix socket."""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence

from lpml.errors import ProtocolError
from lpml.wire.memory import File
from lpml.wire.segments import Receiver
from lpml.wire.sockets import Connection

MOST_FILES = 200  # descriptors of one message; the kernel takes 253
ROOM = socket.CMSG_SPACE(256 * 4)
"""What `recvmsg_into` is given for descriptors."""
_CUT = int(socket.MSG_CTRUNC)  # a plain int: the arithmetic of an enum costs microseconds


def send_with_files(
    connection: Connection, data: bytes | memoryview, files: Sequence[File], flags: int = 0
) -> int:
    """Sends the beginning of `data` and, with its first byte, all the descriptors."""
    assert isinstance(connection, socket.socket)
    fds = array.array("i", [file.fd for file in files])
    return connection.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)], flags)


def take_files(ancillary: Sequence[tuple[int, int, bytes]], flags: int, to: Receiver) -> None:
    """Takes the descriptors that `recvmsg_into` returned.

    Raises:
      ProtocolError: one could not be taken.
    """
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds = array.array("i")
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            to.files.extend(File(fd) for fd in fds)
    if flags & _CUT:
        raise ProtocolError(
            "file descriptors were lost on their way: the limit of open files is reached "
            "(ulimit -n)"
        )
