"""Connections to other hosts: TCP under mutual TLS 1.3, between members of one run.

Whoever connects or accepts shows a certificate of the run's own authority, and takes no other.
Nothing that arrives is looked at before that. Descriptors cannot travel, so everything goes inline.
"""

from __future__ import annotations

import functools
import hashlib
import os
import select
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, final

from lpml.errors import LaunchError, NodeUnavailable

PATIENCE = 0.25  # seconds that a read waits, as `Inlet` wants it
HANDSHAKE = 10.0
"""Seconds that a peer has to prove who it is."""
_SILENCE = 10  # seconds without a sign of the other host until a connection counts as cut
_AT_ONCE = 1 << 20  # bytes that one read decrypts at most, so that others have their turn


@final
@dataclass(frozen=True)
class Identity:
    """What a member of a run shows to others, and checks others by. All in PEM."""

    authority: str
    """The certificate of the run's authority."""
    certificate: str
    key: str = field(repr=False)

    @property
    def run(self) -> str:
        """Names the authority, in addresses."""
        return hashlib.sha256(self.authority.encode()).hexdigest()[:12]


_identities: dict[str, Identity] = {}  # {run: what we are there}


def join(identity: Identity) -> None:
    """This process is a member of a run, from now on."""
    _identities[identity.run] = identity


def leave(identity: Identity) -> None:
    """It is not any more."""
    _identities.pop(identity.run, None)


@functools.lru_cache(maxsize=16)
def context_of(identity: Identity, *, server: bool) -> ssl.SSLContext:
    """TLS 1.3 only, with a certificate on both sides, each of the run's authority."""
    purpose = ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT
    context = ssl.SSLContext(purpose)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # members are told by the authority, wherever they run
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=identity.authority)
    if server:
        context.num_tickets = 0  # nobody comes back without showing the certificate again
    with tempfile.TemporaryDirectory(prefix="lpml-") as folder:  # ssl takes only files; it is 0700
        path = os.path.join(folder, "identity.pem")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(identity.certificate + identity.key)
        context.load_cert_chain(path)
    return context


def listen_tcp(host: str) -> socket.socket:
    """A socket at a free port of the interface `host`, which accepts into its backlog.

    Raises:
      LaunchError: the machine refuses.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind((host, 0))
        listener.listen(4096)
    except OSError as error:
        listener.close()
        raise LaunchError(
            f"no port can be had at {host} ({error.strerror or error}); is that an address of "
            "this host?"
        ) from error
    return listener


def address_of(listener: socket.socket, identity: Identity) -> str:
    """`tls://RUN@HOST:PORT`."""
    host, port = listener.getsockname()[:2]
    return f"tls://{identity.run}@{f'[{host}]' if ':' in host else host}:{port}"


def dial_tls(address: str) -> TlsConnection:
    """A connection to the member of a run that listens at `tls://RUN@HOST:PORT`.

    Raises:
      NodeUnavailable: this process is no member of that run.
      OSError: nobody answers, or whoever does is of another run.
    """
    run, _, place = address.removeprefix("tls://").rpartition("@")
    if run not in _identities:
        raise NodeUnavailable(f"{address} is of a run on other hosts; this process is not of it")
    host, _, port = place.rpartition(":")
    plain = socket.create_connection((host.strip("[]"), int(port)), timeout=HANDSHAKE)
    try:
        connection = TlsConnection(plain, context_of(_identities[run], server=False), server=False)
    except BaseException:
        plain.close()
        raise
    try:
        connection.shake_hands(monotonic() + HANDSHAKE)
    except BaseException:
        connection.close()
        raise
    return connection


def tune(plain: socket.socket) -> None:
    """Small messages go at once, and a cut link is found even where nobody writes."""
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 3),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", _SILENCE * 1000),
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
        self._lock = threading.Lock()  # the library bears no two threads; never held while waiting
        self._wait = True
        self.owed = False
        """Whether the beginning of a message was encrypted, so that only it can follow."""

    def shake_hands(self, end: float) -> None:
        """Waits until both sides have proved who they are.

        Raises:
          OSError: they have not, or not until `end`.
        """
        while wanted := self.step():
            left = end - monotonic()
            if left <= 0:
                raise TimeoutError("no TLS handshake in time")
            _poll(self.fileno(), wanted, left)

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
            _poll(self.fileno(), select.POLLIN, PATIENCE)
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
            except ssl.SSLError as error:
                raise ConnectionResetError(f"TLS: {error.reason or error}") from error
            except ValueError as error:  # another thread has closed it
                raise ConnectionResetError("the connection was closed") from error
            if count == 0:
                return taken
            taken += count
        return taken or None

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Sends the beginning of `data`. After a BlockingIOError only the same may be sent again.

        Raises:
          BlockingIOError: nothing of it could be sent now.
        """
        del flags
        view, done = memoryview(data), 0
        while done < len(view):
            try:
                with self._lock:
                    done += self._tls.send(view[done:])
                self.owed = False
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.owed = True
                if done:
                    return done
                raise BlockingIOError from None
            except ssl.SSLError as error:
                raise ConnectionResetError(f"TLS: {error.reason or error}") from error
            except ValueError as error:
                raise ConnectionResetError("the connection was closed") from error
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


def _poll(fd: int, mask: int, timeout: float) -> None:
    if fd < 0:
        raise ConnectionResetError("the connection was closed")
    poll = select.poll()
    poll.register(fd, mask)
    poll.poll(timeout * 1000)
