"""Listen, connect, and prove who is there."""

from __future__ import annotations

import os
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, final

from lpml.errors import LaunchError, NodeUnavailable, ProtocolError

if TYPE_CHECKING:
    from lpml.wire.tls_connection import TlsConnection

Connection: TypeAlias = "socket.socket | TlsConnection"
Address: TypeAlias = str
"""Where a node listens: `unix:/path`, or `tls://run@host:port`."""

BACKLOG = 4096
_LONGEST = 107 if sys.platform == "linux" else 103  # bytes in a sockaddr_un, less its end


def listen(path: Path) -> socket.socket:
    """A Unix socket at `path` that accepts connections into its backlog from now on.

    Its folder is made (0700) if it is not there; the socket is 0600.

    Raises:
      LaunchError: the path is too long, is taken, or cannot be made.
    """
    path = Path(path)
    length = len(os.fsencode(path))
    if length > _LONGEST:
        raise LaunchError(
            f"the socket {path} cannot be made: its path has {length} bytes and the system "
            f"allows {_LONGEST}; set LPML_SOCKETS to a folder with a shorter name"
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        listener.bind(str(path))
        os.chmod(path, 0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise LaunchError(
            f"the socket {path} cannot be made: {error.strerror or error}; free it, or set "
            f"LPML_SOCKETS to a folder of yours that can be written"
        ) from error
    return listener


def path_of(address: Address) -> str:
    """The path of a `unix:` address.

    Raises:
      NodeUnavailable: the address is of no kind that this release knows.
    """
    scheme, _, path = address.partition(":")
    if scheme != "unix" or not path:
        raise NodeUnavailable(f"the address {address!r} is not of the form unix:/path")
    return path


@final
class _Connection(socket.socket):
    """Is closed with its last owner, without the warning that a forgotten socket gives.

    An owner that is part of a reference cycle (an exception and its frames) cannot close it
    before the collector comes to the socket itself.
    """

    def __del__(self) -> None:
        self.close()


def dial(address: Address) -> Connection:
    """A connected blocking socket whose peer is of our user, or of our run.

    Raises:
      OSError: nobody listens.
      ProtocolError: the listener belongs to somebody else.
    """
    if address.startswith("tls://"):
        from lpml.wire.tls import dial_tls

        return dial_tls(address)
    connection = _Connection(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path_of(address))
        check_peer(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end, as the kernel says."""
    if sys.platform == "linux":
        size = struct.calcsize("3i")
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(struct.unpack("3i", credentials)[1])
    # struct xucred of LOCAL_PEERCRED (BSD, macOS): version, uid, ...
    return int(struct.unpack_from("2I", connection.getsockopt(0, 1, 76))[1])


def check_peer(connection: socket.socket) -> None:
    """Lets only our own user pass.

    Raises:
      ProtocolError: the peer is another user.
    """
    uid = peer_uid(connection)
    if uid != os.getuid():
        raise ProtocolError(
            f"the peer runs as user {uid} and this process as {os.getuid()}; nodes of one "
            "program run as one user"
        )
