"""Connections to other hosts: TCP under mutual TLS 1.3, between members of one run.

Whoever connects or accepts shows a certificate of the run's own authority, and takes no other.
Nothing that arrives is looked at before that. Descriptors cannot travel, so everything goes inline.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import ssl
import tempfile
from dataclasses import dataclass, field
from time import monotonic
from typing import final

from lpml.clock import call_timeout
from lpml.errors import CallTimeout, LaunchError, NodeUnavailable
from lpml.wire.tls_connection import TlsConnection as TlsConnection

HANDSHAKE = 10.0
"""Seconds that a peer has to prove who it is."""


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
    _load(context, (identity.certificate + identity.key).encode())
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Gives a context its certificate and key. The library takes only files; ours has no name."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("identity", os.MFD_CLOEXEC), "wb", buffering=0) as file:
            file.write(pem)
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.TemporaryDirectory(prefix="lpml-") as folder:  # 0700
        path = os.path.join(folder, "identity.pem")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        context.load_cert_chain(path)


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

    A node that is being built has a backlog in which we wait for it, until our call's deadline.

    Raises:
      NodeUnavailable: this process is no member of that run.
      CallTimeout: the deadline of the call for which we connect has passed.
      CallCancelled: the call in which we connect was cancelled.
      OSError: nobody answers, or whoever does is of another run.
    """
    run, _, place = address.removeprefix("tls://").rpartition("@")
    if run not in _identities:
        raise NodeUnavailable(f"{address} is of a run on other hosts; this process is not of it")
    host, _, port = place.rpartition(":")
    seconds = call_timeout()
    end = None if seconds is None else monotonic() + seconds
    patience = HANDSHAKE if seconds is None else max(0.001, min(HANDSHAKE, seconds))
    try:
        plain = socket.create_connection((host.strip("[]"), int(port)), timeout=patience)
    except TimeoutError:
        if patience < HANDSHAKE:
            raise CallTimeout(f"{address} was not reached before the call's deadline") from None
        raise
    try:
        connection = TlsConnection(plain, context_of(_identities[run], server=False), server=False)
    except BaseException:
        plain.close()
        raise
    try:
        connection.shake_hands(end)
    except BaseException:
        connection.close()
        raise
    return connection
