"""The proxy that has the methods of a service: over a connection, or in the same process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from time import monotonic
from typing import Any, final

from lpml.clock import call_timeout, current_call
from lpml.errors import (
    CallError,
    CallTimeout,
    NodeUnavailable,
    RemoteError,
    closest,
    remote_error,
)
from lpml.service import Interface, MethodSpec
from lpml.wire import frames
from lpml.wire.channel import Arguments, Unsent
from lpml.wire.codec import Encoded, culprit, encode_arguments
from lpml.wire.futures import Future
from lpml.wire.links import Peer, link_to
from lpml.wire.segments import LARGE
from lpml.wire.sockets import Address
from lpml.wire.streams import RemoteItems, Stream

_RECONNECTS = 5  # times that a connection may break before a call is sent


def connect(
    address: Address, interface: Interface, *, node: str, caller: str = "", log: str = ""
) -> Any:
    """A client: an object with the methods of a service that runs elsewhere.

    Connects when it is first used; the clients of one address in one process share a connection.

    Args:
      address: where the node listens.
      interface: the methods of its service.
      node: the node's name, for messages.
      caller: the name of who calls, for messages; "" = the node whose code is running.
      log: the path of the node's log file, for messages.
    """
    return Client(Peer(link_to(address), interface, node, caller, log))


def close(client: object) -> None:
    """Ends a client: calls through it raise from now on. Idempotent.

    The connection is closed with its last client; what is pending then fails.
    """
    if isinstance(client, Client):
        client._lpml_peer.close()


class Method(ABC):
    """One method of a client. Calling it waits for the result."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    @abstractmethod
    def start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """The call without waiting."""

    @abstractmethod
    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Stream[Any]:
        """The call of a generator method."""

    @property
    @abstractmethod
    def streams(self) -> bool:
        """Whether it is a generator method."""


@final
class Client:
    """Has the methods of a service. Made by `connect`; sent to other nodes, it is one there."""

    def __init__(self, peer: Peer) -> None:
        self._lpml_peer = peer

    def __getattr__(self, name: str) -> Any:
        peer = self.__dict__.get("_lpml_peer")
        if peer is None or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        spec = peer.interface.methods.get(name)
        if spec is None:
            raise AttributeError(missing(peer.node, peer.interface, name))
        method = self.__dict__[name] = RemoteMethod(peer, name, spec)
        return method

    def __dir__(self) -> list[str]:
        return sorted(self._lpml_peer.interface.methods)

    def __repr__(self) -> str:
        peer = self._lpml_peer
        return f"<client of {peer.node}, a {peer.interface.service}, at {peer.link.address}>"

    def __reduce__(self) -> Any:
        peer = self._lpml_peer
        return _reconnect, (peer.link.address, peer.interface, peer.node, peer.log)


def _reconnect(address: Address, interface: Interface, node: str, log: str) -> Any:
    return connect(address, interface, node=node, log=log)


def missing(node: str, interface: Interface, name: str) -> str:
    """The message of an unknown method."""
    return f"{node} ({interface.service}) has no method {name!r}" + closest(
        name, list(interface.methods)
    )


@final
class RemoteMethod(Method):
    """A method of a client, bound."""

    __slots__ = ("_peer", "_spec", "_wire_name", "idempotent", "name")

    def __init__(self, peer: Peer, name: str, spec: MethodSpec) -> None:
        self._peer = peer
        self._spec = spec
        self._wire_name = name.encode()
        self.name = name
        self.idempotent = spec.idempotent

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._spec.stream:
            return self.open(args, kwargs)
        peer = self._peer
        channel = peer.link.open_channel
        if channel is None or channel.broken or peer.closed:
            channel = peer.link.channel(peer)
        try:
            arguments = encode_arguments(args, kwargs)
        except Exception as error:
            raise self._unsendable(args, kwargs, error) from error
        flags = frames.KEYWORDS if kwargs else 0
        try:
            if type(arguments) is bytes and not kwargs and len(arguments) < LARGE:
                return channel.call(self._wire_name, arguments, call_timeout(), self)
            return channel.start(self._wire_name, flags, arguments, call_timeout(), self).result()
        except Unsent as error:
            return self.send_again(flags, arguments, error.deadline).result()
        except NodeUnavailable as error:
            if not (self.idempotent and error.pending):
                raise
            try:
                again = self.send_again(flags, arguments, error.deadline)
            except NodeUnavailable:  # for good; how it went says more
                raise error from None
            return again.result()

    def start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        flags = frames.KEYWORDS if kwargs else 0
        return self._start(flags, self.encode(args, kwargs))

    def send(self, arguments: Arguments, keywords: bool) -> Future[Any]:
        """Starts a call with arguments that are prepared; its future fails if the node is gone."""
        try:
            return self._start(frames.KEYWORDS if keywords else 0, arguments)
        except NodeUnavailable as error:
            return Future.failed(self, error)

    def _start(self, flags: int, arguments: Arguments) -> Future[Any]:
        channel = self._peer.link.channel(self._peer)
        try:
            return channel.start(self._wire_name, flags, arguments, call_timeout(), self)
        except Unsent as error:
            return self.send_again(flags, arguments, error.deadline)

    def send_again(self, flags: int, arguments: Arguments, deadline: float | None) -> Future[Any]:
        """Starts a call over a new connection, with what is left of its time.

        Where the node is being restarted, the connection waits for it, and the call with it.

        Raises:
          NodeUnavailable: nobody listens: the node has ended for good.
        """
        reason = ""
        for _ in range(_RECONNECTS):
            channel = self._peer.link.channel(self._peer)
            left = None if deadline is None else max(0.0, deadline - monotonic())
            try:
                return channel.start(self._wire_name, flags, arguments, left, self)
            except Unsent as error:
                reason = str(error)
        raise self.gone(reason)

    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Stream[Any]:
        channel = self._peer.link.channel(self._peer)
        flags = frames.KEYWORDS if kwargs else 0
        timeout = None if current_call.get() is None else call_timeout()
        inbox = channel.open(self._wire_name, flags, self.encode(args, kwargs), timeout, self)
        return Stream(RemoteItems(channel, inbox))

    @property
    def streams(self) -> bool:
        return self._spec.stream

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes | Encoded:
        """The arguments as they are sent.

        Raises:
          CallError: one of them cannot be.
        """
        try:
            return encode_arguments(args, kwargs)
        except Exception as error:
            raise self._unsendable(args, kwargs, error) from error

    def _unsendable(self, args: object, kwargs: object, error: Exception) -> CallError:
        return CallError(f"{culprit((args, kwargs))} of {self} cannot be sent: {error}")

    def __str__(self) -> str:
        return f"{self._peer.node}.{self.name}"

    def __repr__(self) -> str:
        return f"<method {self} of a client>"

    def __reduce__(self) -> Any:
        return getattr, (Client(self._peer), self.name)

    # The errors of a call, in the words of its caller.

    def remote(self, cause: BaseException, traceback: str) -> BaseException:
        """The method raised."""
        return remote(self._peer.caller_name(), str(self), cause, traceback, self._peer.log_line())

    def gone(
        self, reason: str, deadline: float | None = None, *, pending: bool = False
    ) -> NodeUnavailable:
        """The node is not there."""
        error = NodeUnavailable(f"{self._words()}: {reason}" + self._peer.log_line())
        error.pending, error.deadline = pending, deadline
        return error

    def late(self) -> CallTimeout:
        """The deadline passed."""
        return CallTimeout(
            f"{self._words()} and had no reply by the deadline; the node may be busy or stuck: "
            "give more time with lpml.deadline(seconds), or look at `lpml stack`"
            + self._peer.log_line()
        )

    def unreadable(self, error: Exception) -> CallError:
        """The reply cannot be unpickled here."""
        return CallError(
            f"{self._words()} and its reply cannot be read here: "
            f"{type(error).__name__}: {error}" + self._peer.log_line()
        )

    def _words(self) -> str:
        return f"{self._peer.caller_name() or 'this process'} called {self}"


def remote(
    caller: str, method: str, cause: BaseException, traceback: str, log_line: str
) -> RemoteError:
    """What the caller of a method that raised `cause` sees."""
    text = " ".join(str(cause).split())
    text = text if len(text) <= 400 else text[:400] + " ..."
    message = (
        f"{caller or 'this process'} called {method}, which raised\n"
        f"{type(cause).__name__}: {text}" + log_line
    )
    return remote_error(cause, message, traceback)
