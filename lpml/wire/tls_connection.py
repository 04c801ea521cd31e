"""One TCP connection under TLS, with what a `Channel` and a `Session` use of a socket."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Iterable
from time import monotonic
from typing import Any, final

from lpml.errors import CallTimeout
from lpml.wire.patience import PATIENCE, check_caller

_RETRIES = 5  # times that the kernel sends something in vain until a link counts as cut: 6 s
WRITE = 1 << 18
"""Bytes that are encrypted and sent at once, without a look at the rest of Python."""
_ENDED = getattr(select, "POLLRDHUP", 0)  # Linux: the peer has closed, or will send no more
_AT_ONCE = 1 << 20  # bytes that one read decrypts at most, so that others have their turn


def tune(plain: socket.socket) -> None:
    """Small messages go at once, and a cut link is found even where nobody writes.

    Not by TCP_USER_TIMEOUT: to it, a peer that is too busy to read is a link that is cut.
    """
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 3),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
    ):
        if hasattr(socket, name):
            plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@final
class TlsConnection:
    """What a `Channel` and a `Session` use of a socket, over TLS.

    One thread may read while another writes.

    Args:
      plain: a connected TCP socket; belongs to this object from now on.
      context: as `context_of` makes it.
      server: whether we are the side that accepted.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, *, server: bool) -> None:
        tune(plain)
        plain.setblocking(False)
        self._tls = context.wrap_socket(plain, server_side=server, do_handshake_on_connect=False)
        # The library bears no two threads. Never held while waiting; taken twice where a garbage
        # collection, which may tell the peer something, comes while we read.
        self._lock = threading.RLock()
        self._end = select.poll()
        self._end.register(self._tls, _ENDED)
        self._wait = True
        self.owed = False
        """Whether the beginning of a message was encrypted, so that only it can follow."""

    def shake_hands(self, end: float | None) -> None:
        """Waits until both sides have proved who they are.

        Raises:
          OSError: they have not.
          CallTimeout: nor until `end`.
          CallCancelled: the call in which we wait was cancelled.
        """
        while wanted := self.step():
            left = PATIENCE if end is None else end - monotonic()
            if left <= 0:
                raise CallTimeout("the node has not answered; it is busy, stopped or being built")
            if not _poll(self.fileno(), wanted, min(left, PATIENCE)):
                check_caller()
                self._check_link()

    def step(self) -> int:
        """Goes on with the handshake; what it waits for (POLLIN, POLLOUT), or 0 when it is done.

        Raises:
          OSError: the peer is no member of the run.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return select.POLLIN
        except ssl.SSLWantWriteError:
            return select.POLLOUT
        return 0

    # As of a socket.

    def fileno(self) -> int:
        """The descriptor; it may be silent while `pending`."""
        return self._tls.fileno()

    def setblocking(self, flag: bool) -> None:
        """Whether `recvmsg_into` waits a moment."""
        self._wait = flag

    def setsockopt(self, *args: Any) -> None:
        """Times are ours to keep."""

    def pending(self) -> bool:
        """Whether something was received that nobody has read."""
        with self._lock:
            return self._tls.fileno() >= 0 and self._tls.pending() > 0

    def recvmsg_into(
        self, buffers: Iterable[memoryview | bytearray], room: int = 0
    ) -> tuple[int, list[tuple[int, int, bytes]], int, None]:
        """Reads what is there; where nothing is, waits for it a moment if it may.

        Raises:
          BlockingIOError: nothing came.
        """
        del room
        (buffer,) = buffers
        view = memoryview(buffer)
        count = self._take(view)
        if count is None and self._wait:
            if not _poll(self.fileno(), select.POLLIN, PATIENCE):
                self._check_link()
            count = self._take(view)
        if count is None:
            raise BlockingIOError
        return count, [], 0, None

    def _take(self, view: memoryview) -> int | None:
        """Bytes read; 0 at the end, `None` if nothing is there."""
        taken, most = 0, min(len(view), _AT_ONCE)
        while taken < most:
            try:
                with self._lock:
                    count = self._tls.recv_into(view[taken:])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except (OSError, ValueError) as error:  # a ValueError: another thread has closed it
                if taken:  # what came before counts; the next read says the rest
                    break
                raise _reset(error) from error
            if count == 0:
                return taken
            taken += count
        return taken or None

    def _check_link(self) -> None:
        """Raises where the kernel sends again and again and the other host never answers."""
        if hasattr(socket, "TCP_INFO"):
            info = self._tls.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
            retransmits = struct.unpack("8B", info)[2]
            if retransmits > _RETRIES:
                raise ConnectionResetError("the link to its host is cut")

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Sends the beginning of `data`.

        What is left must be sent next, and its first `WRITE` bytes in one piece: some of them may
        be encrypted already, and the library counts no part of what it was given.

        Raises:
          BlockingIOError: nothing of it could be sent now.
          ConnectionResetError: the peer is gone, and has none of it.
        """
        del flags
        # TCP takes what is sent to a peer that has closed, and nobody could tell whether it came.
        if self._end.poll(0):
            raise ConnectionResetError("it closed the connection")
        view, done = memoryview(data), 0
        while done < len(view):
            try:
                with self._lock:
                    done += self._tls.send(view[done : done + WRITE])
                self.owed = False
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.owed = True
                if done:
                    return done
                raise BlockingIOError from None
            except (OSError, ValueError) as error:
                raise _reset(error) from error
        return done

    def shutdown(self, how: int) -> None:
        """As of a socket; what was decrypted can still be read."""
        socket.socket.shutdown(self._tls, how)

    def close(self) -> None:
        """Closes it."""
        with self._lock:
            self._tls.close()

    def __del__(self) -> None:
        self.close()


def _reset(error: OSError | ValueError) -> OSError:
    if isinstance(error, ssl.SSLError):
        return ConnectionResetError(f"TLS: {error.reason or error}")
    return error if isinstance(error, OSError) else ConnectionResetError("it was closed")


def _poll(fd: int, mask: int, timeout: float) -> bool:
    if fd < 0:
        raise ConnectionResetError("the connection was closed")
    poll = select.poll()
    poll.register(fd, mask)
    return bool(poll.poll(timeout * 1000))
